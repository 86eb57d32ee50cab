// Bindings of sources and transforms. The packages gradring.sources and gradring.transforms check all arguments first.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bindings/gil.h"
#include "bindings/held_error.h"
#include "bindings/row_functions.h"
#include "loader/column_source.h"
#include "loader/scratch.h"
#include "loader/selected_source.h"
#include "loader/sources/array_header.h"
#include "loader/sources/concat_column.h"
#include "loader/sources/file_column.h"
#include "loader/sources/memory_column.h"
#include "loader/sources/open_file.h"
#include "loader/transform.h"
#include "loader/transforms/plan.h"

namespace gradring {

namespace {

// All code uses sources as const, but pybind11 cannot hold pointers to const.
using SharedSource = std::shared_ptr<Source>;
SharedSource share(const std::shared_ptr<const Source>& source) { return std::const_pointer_cast<Source>(source); }

struct ColumnHandle {
  std::shared_ptr<const Column> column;
};

Dtype parse_dtype(const std::string& name) {
  const Dtype dtype = dtype_named(name);
  if (dtype != kNoDtype) return dtype;
  throw Error(Code::kInvalidArgument, "[loader] dtype " + name + " is not one that transforms know");
}

ImageLayout parse_layout(const std::string& name) {
  if (name == "HWC") return ImageLayout::kHwc;
  if (name == "CHW") return ImageLayout::kChw;
  if (name == "auto") return ImageLayout::kAuto;
  throw Error(Code::kInvalidArgument, "[loader] layout is '" + name + "': expected 'HWC', 'CHW' or 'auto'");
}

ColumnHandle memory_column(const std::string& name, const std::string& dtype, uintptr_t address, int64_t length,
                           std::vector<int64_t> shape, std::vector<int64_t> strides, bool swapped, py::object owner) {
  ArrayLayout layout{reinterpret_cast<const std::byte*>(address), std::move(strides), swapped};
  return {std::make_shared<MemoryColumn>(FieldSpec{name, parse_dtype(dtype), std::move(shape)}, length,
                                         std::move(layout), keep(std::move(owner)))};
}

// Makes a field from (name, dtype, shape).
FieldSpec parse_field(const py::tuple& field) {
  return {field[0].cast<std::string>(), parse_dtype(field[1].cast<std::string>()),
          field[2].cast<std::vector<int64_t>>()};
}

ColumnHandle file_column(const std::string& path, const py::tuple& field, int64_t length, int64_t offset,
                         std::vector<int64_t> strides, bool swapped) {
  return {std::make_shared<FileColumn>(parse_field(field), length, FileLayout{offset, std::move(strides), swapped},
                                       std::make_shared<const MappedFile>(path))};
}

// Returns (structured, [(name, NumPy's type string, shape of a row in that type, column)]).
py::tuple describe(FileArray array) {
  py::list fields;
  for (size_t i = 0; i < array.fields.size(); ++i) {
    const HeaderField& field = array.fields[i];
    std::vector<int64_t> shape = array.columns[i]->spec().shape;
    if (field.opaque) shape.pop_back();
    fields.append(py::make_tuple(field.name, field.descr, shape, ColumnHandle{array.columns[i]}));
  }
  return py::make_tuple(array.structured, fields);
}

// Each of `fields` is (name, native dtype, swapped, native shape, offset in the record).
std::vector<ColumnHandle> raw_columns(const std::string& path, const std::vector<py::tuple>& fields,
                                      int64_t record_bytes, int64_t offset) {
  std::vector<HeaderField> described;
  for (const py::tuple& given : fields) {
    HeaderField field;
    field.name = given[0].cast<std::string>();
    field.dtype = parse_dtype(given[1].cast<std::string>());
    field.swapped = given[2].cast<bool>();
    field.shape = given[3].cast<std::vector<int64_t>>();
    field.offset = given[4].cast<int64_t>();
    described.push_back(std::move(field));
  }
  std::vector<ColumnHandle> handles;
  for (auto& column : open_raw(path, std::move(described), record_bytes, offset).columns) handles.push_back({column});
  return handles;
}

TransformStep parse_call(const std::string& kind, const py::tuple& given, const FieldSpec& input) {
  CallStep step;
  const auto dtype = given[2].cast<py::object>();
  const auto shape = given[3].cast<py::object>();
  step.dtype = dtype.is_none() ? input.dtype : parse_dtype(dtype.cast<std::string>());
  step.shape = shape.is_none() ? input.shape : shape.cast<std::vector<int64_t>>();
  const FieldSpec output{input.name, step.dtype, step.shape};
  if (kind == "python") {
    const auto make = given[1].cast<py::function>();
    step.function =
        python_function(make(input.name, dtype_name(step.dtype), py::tuple(py::cast(step.shape))), input, output);
  } else {
    const auto address = given[1].cast<std::pair<uintptr_t, uintptr_t>>();
    step.function = native_function(address.first, address.second, given[4].cast<py::object>(), input, output);
  }
  return step;
}

TransformStep parse_step(const py::tuple& given, const FieldSpec& input) {
  const auto kind = given[0].cast<std::string>();
  if (kind == "cast") return CastStep{parse_dtype(given[1].cast<std::string>())};
  if (kind == "scale") return ScaleStep{given[1].cast<double>(), given[2].cast<double>()};
  if (kind == "normalize") {
    return NormalizeStep{given[1].cast<std::vector<double>>(), given[2].cast<std::vector<double>>(),
                         parse_layout(given[3].cast<std::string>())};
  }
  if (kind == "one_hot") return OneHotStep{given[1].cast<int64_t>(), parse_dtype(given[2].cast<std::string>())};
  if (kind == "flip") {
    return FlipStep{given[1].cast<double>(), given[2].cast<bool>(), parse_layout(given[3].cast<std::string>())};
  }
  if (kind == "crop") {
    return CropStep{given[1].cast<int64_t>(), given[2].cast<int64_t>(), given[3].cast<int64_t>(),
                    parse_layout(given[4].cast<std::string>())};
  }
  return parse_call(kind, given, input);
}

SharedSource transformed(const SharedSource& source, const std::vector<std::vector<py::tuple>>& transforms) {
  const auto& fields = source->fields();
  std::vector<std::vector<TransformStep>> steps(transforms.size());
  for (size_t i = 0; i < transforms.size() && i < fields.size(); ++i) {
    for (const py::tuple& given : transforms[i]) {
      // The dtype and the shape of a function's input depend on the transforms before it.
      const RowPlan before(fields[i], steps[i], static_cast<int>(i));
      steps[i].push_back(parse_step(given, before.output()));
    }
  }
  return share(transform_source(source, std::move(steps)));
}

SharedSource selected(const SharedSource& source, const py::array_t<int64_t, py::array::c_style>& numbers) {
  std::vector<int64_t> chosen(numbers.data(), numbers.data() + numbers.size());
  return share(select(source, select_numbers(std::move(chosen), source->length())));
}

SharedSource part_of(const SharedSource& source, int64_t begin, int64_t end, bool others, bool shuffle, uint64_t seed) {
  return share(select(source, select_part({begin, end, others, shuffle, seed}, source->length())));
}

py::array_t<int64_t> numbers_of(const Source& source, const py::array_t<int64_t, py::array::c_style>& positions) {
  py::array_t<int64_t> numbers(positions.size());
  std::copy_n(positions.data(), positions.size(), numbers.mutable_data());
  source.number(numbers.mutable_data(), numbers.size());
  return numbers;
}

py::list describe_fields(const SharedSource& source) {
  py::list fields;
  for (const FieldSpec& spec : source->fields()) {
    fields.append(py::make_tuple(spec.name, dtype_name(spec.dtype), py::tuple(py::cast(spec.shape))));
  }
  return fields;
}

// Reads samples into C-contiguous arrays, one per field. Tests, and reads outside a loader, use it.
void read_into(const Source& source, const py::array_t<int64_t, py::array::c_style>& samples,
               const std::vector<py::array>& arrays, uint64_t seed, uint64_t epoch) {
  if (arrays.size() != source.fields().size())
    throw Error(Code::kInvalidArgument, "[loader] there must be one array per field");
  std::vector<std::byte*> places;
  for (size_t i = 0; i < arrays.size(); ++i) {
    const size_t wanted = source.fields()[i].row_bytes() * static_cast<size_t>(samples.size());
    if (static_cast<size_t>(arrays[i].nbytes()) != wanted || !(arrays[i].flags() & py::array::c_style)) {
      throw Error(Code::kInvalidArgument, "[loader] an array to read into does not fit its field");
    }
    places.push_back(static_cast<std::byte*>(const_cast<void*>(arrays[i].data())));
  }
  const Scratch scratch(source.scratch_bytes());
  ReadRequest request;
  request.samples = samples.data();
  request.rows = samples.size();
  request.fields = places.data();
  request.scratch = scratch.data();
  request.seed = seed;
  request.epoch = epoch;
  int64_t failed_row = -1;
  Status status;
  {
    const GilRelease release;
    status = source.read(request, &failed_row);
  }
  throw_status(status);
}

}  // namespace

void bind_sources(py::module_& m) {
  py::class_<ColumnHandle>(m, "Column", "One field of a native source.")
      .def_property_readonly("length", [](const ColumnHandle& handle) { return handle.column->length(); });
  py::class_<Source, SharedSource>(m, "Source", "A native source of samples, which the loader's workers read.")
      .def_property_readonly("length", &Source::length)
      .def_property_readonly("fields", &describe_fields, "[(name, dtype, shape of a row)]")
      .def_property_readonly(
          "parts", [](const SharedSource& source) { return source->parts(); },
          "The names of the transforms' stages, which reading runs on the rows that it has fetched.")
      .def("transformed", &transformed, py::arg("transforms"))
      .def("selected", &selected, py::arg("numbers"),
           "Return a source of the samples with these numbers, in this order.")
      .def("part", &part_of, py::arg("begin"), py::arg("end"), py::arg("others"), py::arg("shuffle"), py::arg("seed"),
           "Return a source of the samples at the positions from begin to end of an order, or of all other samples. "
           "Its memory does not depend on their number.")
      .def("numbers", &numbers_of, py::arg("positions"),
           "Return the numbers that the samples at these positions have in the innermost source.")
      .def("read_into", &read_into, py::arg("samples"), py::arg("arrays"), py::arg("seed") = 0, py::arg("epoch") = 0);
  m.def("memory_column", &memory_column, py::arg("name"), py::arg("dtype"), py::arg("address"), py::arg("length"),
        py::arg("shape"), py::arg("strides"), py::arg("swapped"), py::arg("owner"));
  m.def("file_column", &file_column, py::arg("path"), py::arg("field"), py::arg("length"), py::arg("offset"),
        py::arg("strides"), py::arg("swapped"));
  m.def(
      "npy_columns", [](const std::string& path, const std::string& name) { return describe(open_npy(path, name)); },
      py::arg("path"), py::arg("name"));
  m.def(
      "idx_columns", [](const std::string& path, const std::string& name) { return describe(open_idx(path, name)); },
      py::arg("path"), py::arg("name"));
  m.def("raw_columns", &raw_columns, py::arg("path"), py::arg("fields"), py::arg("record_bytes"), py::arg("offset"));
  m.def(
      "column_source",
      [](const std::vector<ColumnHandle>& handles) {
        std::vector<std::shared_ptr<const Column>> columns;
        for (const ColumnHandle& handle : handles) columns.push_back(handle.column);
        return share(std::make_shared<ColumnSource>(std::move(columns)));
      },
      py::arg("columns"));
  m.def(
      "call_source",
      [](const py::function& checked, int64_t length, const std::vector<py::tuple>& fields, int kind,
         const py::list& looks, bool keyed) {
        std::vector<FieldSpec> specs;
        for (const py::tuple& field : fields) specs.push_back(parse_field(field));
        SampleForm form(static_cast<SampleForm::Kind>(kind), looks);
        return share(call_source(checked, length, std::move(specs), std::move(form), keyed));
      },
      py::arg("checked"), py::arg("length"), py::arg("fields"), py::arg("kind"), py::arg("looks"),
      py::arg("keyed") = false);
  m.def(
      "concat_column",
      [](const std::vector<ColumnHandle>& handles) {
        std::vector<std::shared_ptr<const Column>> parts;
        for (const ColumnHandle& handle : handles) parts.push_back(handle.column);
        return ColumnHandle{std::make_shared<ConcatColumn>(std::move(parts))};
      },
      py::arg("parts"));
}

}  // namespace gradring
