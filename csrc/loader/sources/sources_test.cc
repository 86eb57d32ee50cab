#include <doctest/doctest.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "loader/column_source.h"
#include "loader/scratch.h"
#include "loader/sources/array_header.h"
#include "loader/sources/file_column.h"
#include "loader/sources/memory_column.h"
#include "loader/sources/open_file.h"

namespace gradring {

namespace {

// A file in the working directory that ends with the test.
class TemporaryFile {
 public:
  TemporaryFile() {
    fd_ = mkstemp(name_.data());
    REQUIRE(fd_ >= 0);
  }
  ~TemporaryFile() {
    close(fd_);
    unlink(name_.c_str());
  }
  void write(const std::string& bytes) {
    REQUIRE(::write(fd_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  }
  void cut(int64_t bytes) { REQUIRE(ftruncate(fd_, bytes) == 0); }
  const std::string& name() const { return name_; }

 private:
  std::string name_ = "sources_test_XXXXXX";
  int fd_ = -1;
};

std::string npy(const std::string& dict) {
  std::string header = dict;
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(header.size() & 255) +
         static_cast<char>(header.size() >> 8) + header;
}

std::string floats(int64_t count) {
  std::string bytes(static_cast<size_t>(count) * 4, '\0');
  for (int64_t i = 0; i < count; ++i) {
    const auto value = static_cast<float>(i);
    std::memcpy(bytes.data() + i * 4, &value, 4);
  }
  return bytes;
}

Status read(const Source& source, const std::vector<int64_t>& samples, const std::vector<std::byte*>& fields,
            int64_t* failed) {
  const Scratch scratch(source.scratch_bytes());
  ReadRequest request;
  request.samples = samples.data();
  request.rows = static_cast<int64_t>(samples.size());
  request.fields = fields.data();
  request.scratch = scratch.data();
  return source.read(request, failed);
}

Status parse(const std::string& bytes, ArrayHeader* header, int64_t file_bytes = -1) {
  return parse_npy_header(reinterpret_cast<const std::byte*>(bytes.data()), bytes.size(),
                          file_bytes < 0 ? static_cast<int64_t>(bytes.size()) : file_bytes, "x.npy", header);
}

}  // namespace

TEST_CASE("rows of a file are read in the asked order") {
  TemporaryFile file;
  file.write(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (50, 3), }") + floats(150));
  const ColumnSource source(open_npy(file.name(), "x").columns);
  CHECK(source.length() == 50);
  CHECK(source.fields()[0].shape == std::vector<int64_t>{3});
  std::vector<float> rows(9);
  int64_t failed = -1;
  REQUIRE(read(source, {49, 0, 7}, {reinterpret_cast<std::byte*>(rows.data())}, &failed).ok());
  CHECK(rows == std::vector<float>{147, 148, 149, 0, 1, 2, 21, 22, 23});
  const Status outside = read(source, {1, 50}, {reinterpret_cast<std::byte*>(rows.data())}, &failed);
  CHECK(outside.code() == Code::kOutOfRange);
  CHECK(failed == 1);
}

TEST_CASE("a Fortran-ordered file gives the same rows") {
  TemporaryFile file;
  file.write(npy("{'descr': '<f4', 'fortran_order': True, 'shape': (50, 3), }") + floats(150));
  const ColumnSource source(open_npy(file.name(), "x").columns);
  std::vector<float> rows(6);
  int64_t failed = -1;
  REQUIRE(read(source, {49, 2}, {reinterpret_cast<std::byte*>(rows.data())}, &failed).ok());
  CHECK(rows == std::vector<float>{49, 99, 149, 2, 52, 102});
}

TEST_CASE("a file that shrinks is an error with path and offset, for every reader") {
  constexpr int64_t kRows = 4096;
  TemporaryFile file;
  const std::string header = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4096, 16), }");
  file.write(header + floats(kRows * 16));
  const ColumnSource source(open_npy(file.name(), "x").columns);
  file.cut(static_cast<int64_t>(header.size()) + 1000 * 64);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&source, &file] {
      std::vector<float> rows(3 * 16);
      const std::vector<std::byte*> fields = {reinterpret_cast<std::byte*>(rows.data())};
      int64_t failed = -1;
      const Status status = read(source, {5, 4000, 3}, fields, &failed);
      CHECK(status.code() == Code::kIo);
      CHECK(failed == 1);
      CHECK(std::string(status.message()).find(file.name()) != std::string::npos);
      CHECK(std::string(status.message()).find("offset 256") != std::string::npos);
      CHECK(read(source, {5, 3, 0}, fields, &failed).ok());
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_CASE("the guard is for readers alone, and a taken handler means pread") {
  TemporaryFile file;
  file.write(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2048, 1), }") + floats(2048));
  const ColumnSource source(open_npy(file.name(), "x").columns);
  struct sigaction ours, theirs = {};
  theirs.sa_handler = SIG_DFL;
  REQUIRE(sigaction(SIGBUS, &theirs, &ours) == 0);
  float row = 0;
  int64_t failed = -1;
  CHECK(read(source, {2047}, {reinterpret_cast<std::byte*>(&row)}, &failed).ok());
  CHECK(row == 2047);
  file.cut(100);
  CHECK(read(source, {2047}, {reinterpret_cast<std::byte*>(&row)}, &failed).code() == Code::kIo);
  REQUIRE(sigaction(SIGBUS, &ours, nullptr) == 0);
}

TEST_CASE("a thread that blocks all signals reads with pread") {
  TemporaryFile file;
  file.write(npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2048, 1), }") + floats(2048));
  const ColumnSource source(open_npy(file.name(), "x").columns);
  file.cut(100);
  std::thread([&] {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, nullptr);
    float row = 0;
    int64_t failed = -1;
    CHECK(read(source, {2047}, {reinterpret_cast<std::byte*>(&row)}, &failed).code() == Code::kIo);
  }).join();
}

TEST_CASE("headers: what NumPy writes is understood") {
  ArrayHeader header;
  REQUIRE(parse(npy("{'descr': '>i8', 'fortran_order': False, 'shape': (0, 3), }"), &header).ok());
  CHECK(header.fields[0].dtype == Dtype::kInt64);
  CHECK(header.fields[0].swapped);
  REQUIRE(parse(npy("{'descr': [('a', '<f4'), ('', '|V4'), ('b', '|u1', (2, 3))], 'fortran_order': False, "
                    "'shape': (0,), }"),
                &header)
              .ok());
  CHECK(header.structured);
  CHECK(header.record_bytes == 14);
  REQUIRE(header.fields.size() == 2);
  CHECK(header.fields[1].offset == 8);
  CHECK(header.fields[1].shape == std::vector<int64_t>{2, 3});
  REQUIRE(parse(npy("{'descr': '<c8', 'fortran_order': False, 'shape': (0,), }"), &header).ok());
  CHECK(header.fields[0].opaque);
  CHECK(header.fields[0].shape == std::vector<int64_t>{8});
}

TEST_CASE("headers: what is damaged, hostile or foreign is refused") {
  ArrayHeader header;
  const std::string good = npy("{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }") + floats(4);
  REQUIRE(parse(good, &header).ok());
  for (size_t cut = 0; cut < good.size(); ++cut) CHECK(!parse(good.substr(0, cut), &header).ok());
  for (const char* dict : {
           "{'descr': '|O', 'fortran_order': False, 'shape': (4,), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 1024), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 9223372036854775807), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 9223372036854775807, 9223372036854775807), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (-4,), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }",
           "{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (4,), }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), 'shape': (4,), }",
           "{'descr': '<f4', 'fortran_order': False, }",
           "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), } trailing",
           "{'descr': '<f99999999', 'fortran_order': False, 'shape': (4,), }",
           "{'descr': [('a', [('b', '<f4')])], 'fortran_order': False, 'shape': (4,), }",
           "{'descr': [('a', '<f4', (9223372036854775807, 4))], 'fortran_order': False, 'shape': (0,), }",
           "{'descr': [], 'fortran_order': False, 'shape': (4,), }",
       }) {
    CAPTURE(dict);
    const Status status = parse(npy(dict), &header);
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(std::string(status.message()).rfind("[loader] x.npy ", 0) == 0);
  }
}

TEST_CASE("odd strides and foreign byte order are straightened") {
  std::vector<int16_t> data(6 * 4 * 2);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<int16_t>(i * 257 + 1);
  // data[:, ::-1, 1] of a (6, 4, 2) array
  const ArrayLayout layout{reinterpret_cast<const std::byte*>(data.data() + 3 * 2 + 1), {16, -4}, true};
  const ColumnSource source({std::make_shared<MemoryColumn>(FieldSpec{"x", Dtype::kInt16, {4}}, 6, layout, nullptr)});
  std::vector<int16_t> row(4);
  int64_t failed = -1;
  REQUIRE(read(source, {5}, {reinterpret_cast<std::byte*>(row.data())}, &failed).ok());
  for (size_t i = 0; i < 4; ++i) {
    const auto plain = static_cast<uint16_t>(data[5 * 8 + (3 - i) * 2 + 1]);
    CHECK(static_cast<uint16_t>(row[i]) == __builtin_bswap16(plain));
  }
}

}  // namespace gradring
