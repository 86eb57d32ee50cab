#include "loader/transforms/compile.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <variant>

#include "loader/transforms/chain.h"
#include "loader/transforms/image.h"
#include "loader/transforms/stages.h"
#include "loader/transforms/window.h"

namespace gradring {

namespace {

using Pattern = ChainStep::Pattern;

[[noreturn]] void refuse(const std::string& where, const std::string& what) {
  throw Error(Code::kInvalidArgument, where + ": " + what);
}

std::string shape_text(const std::vector<int64_t>& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::string joined(const std::vector<const char*>& names) {
  std::string text;
  for (const char* name : names) text += (text.empty() ? "" : "+") + std::string(name);
  return text;
}

bool is_float(Dtype dtype) { return dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64; }

using Names = std::vector<const char*>;  // the names of the transforms that a stage does

// A stage that is not complete yet: the next transforms are merged into it as long as that is possible.
struct ChainNode {
  Names names;
  FieldSpec input;
  Dtype to;
  std::vector<ChainStep> steps;
  int64_t planes = 1;
};
struct WindowNode {
  Names names;
  FieldSpec input;
  ImageShape image;
  std::vector<WindowStep> steps;
};
struct OtherNode {
  Names names;
  FieldSpec input;
  std::unique_ptr<const Stage> stage;
};
using Node = std::variant<ChainNode, WindowNode, OtherNode>;

class Compiler {
 public:
  Compiler(const FieldSpec& input, int field) : spec_(input), field_(field) {}

  void add(const TransformStep& step, int index) {
    place_ = {static_cast<uint32_t>(field_), static_cast<uint32_t>(index)};
    name_ = name_of(step);
    std::visit([this](const auto& one) { add_step(one); }, step);
  }
  CompiledPlan finish();

 private:
  void add_step(const CastStep& step) { cast(step.dtype); }
  void add_step(const ScaleStep& step);
  void add_step(const NormalizeStep& step);
  void add_step(const OneHotStep& step);
  void add_step(const FlipStep& step);
  void add_step(const CropStep& step);
  void add_step(const CallStep& step);

  std::string where(const char* transform) const {
    return "[loader] transform " + std::to_string(place_.index) + " (" + transform + ") of field '" + spec_.name + "'";
  }
  template <class NodeType>
  NodeType* last() {
    return nodes_.empty() ? nullptr : std::get_if<NodeType>(&nodes_.back());
  }
  static const char* name_of(const TransformStep& step) {
    static constexpr const char* kNames[] = {"Cast", "Scale", "Normalize", "OneHot", "RandomFlip", "RandomCrop"};
    if (const auto* call = std::get_if<CallStep>(&step)) return call->function ? call->function->name() : "function";
    return kNames[step.index()];
  }
  void sign(Names* names) const {
    if (names->empty() || names->back() != name_) names->push_back(name_);
  }
  void cast(Dtype to);
  void compute_in_float() {
    if (!is_float(spec_.dtype)) cast(Dtype::kFloat32);
  }
  void arithmetic(ChainStep step);
  void normalize_part(ChainOp op, const std::vector<double>& values, const NormalizeStep& step);
  void window(const ImageShape& image, const WindowStep& step);
  bool commutes(const ChainNode& chain, bool pads) const;

  FieldSpec spec_;  // describes the row after the nodes so far
  int field_;
  RandomPlace place_;
  const char* name_ = "copy";  // the name of the transform that is being added
  std::vector<Node> nodes_;
};

void Compiler::cast(Dtype to) {
  if (to == spec_.dtype) return;
  nodes_.push_back(ChainNode{{name_}, spec_, to, {}, 1});
  spec_.dtype = to;
}

// Adds arithmetic in the row's dtype, which is a floating-point one.
void Compiler::arithmetic(ChainStep step) {
  auto* chain = last<ChainNode>();
  if (chain == nullptr) {
    nodes_.push_back(ChainNode{{}, spec_, spec_.dtype, {}, 1});
    chain = last<ChainNode>();
  }
  sign(&chain->names);
  chain->steps.push_back(std::move(step));
}

void Compiler::add_step(const ScaleStep& step) {
  if (!std::isfinite(step.a) || !std::isfinite(step.b)) refuse(where("Scale"), "a and b must be finite");
  compute_in_float();
  arithmetic({ChainOp::kMul, Pattern::kScalar, {step.a}});
  if (step.b != 0) arithmetic({ChainOp::kAdd, Pattern::kScalar, {step.b}});
}

void Compiler::normalize_part(ChainOp op, const std::vector<double>& values, const NormalizeStep& step) {
  const auto count = static_cast<int64_t>(values.size());
  if (count == 1) return arithmetic({op, Pattern::kScalar, values});
  if (count == spec_.elements() && spec_.shape.size() != 3) return arithmetic({op, Pattern::kElements, values});
  if (spec_.shape.size() == 3) {
    const ImageShape image = image_shape(spec_, step.layout, where("Normalize"));
    if (count == image.planes * image.channels) {
      const bool planes = image.planes > 1;
      arithmetic({op, planes ? Pattern::kPlanes : Pattern::kLastAxis, values});
      if (planes) last<ChainNode>()->planes = image.planes;
      return;
    }
    if (count == spec_.elements()) return arithmetic({op, Pattern::kElements, values});
  } else if (!spec_.shape.empty() && count == spec_.shape.back()) {
    return arithmetic({op, Pattern::kLastAxis, values});
  }
  refuse(where("Normalize"), "mean and std have " + std::to_string(count) + " values, but the row is " +
                                 shape_text(spec_.shape) + ": give one, one per channel, or one per element");
}

void Compiler::add_step(const NormalizeStep& step) {
  if (step.mean.empty() || step.std.empty()) refuse(where("Normalize"), "mean and std must not be empty");
  for (double x : step.mean) {
    if (!std::isfinite(x)) refuse(where("Normalize"), "mean must be finite");
  }
  compute_in_float();
  for (double x : step.std) {
    const bool vanishes = spec_.dtype == Dtype::kFloat32 && static_cast<float>(x) == 0;
    if (!std::isfinite(x) || x == 0 || vanishes) refuse(where("Normalize"), "std must be finite and not zero");
  }
  normalize_part(ChainOp::kSub, step.mean, step);
  normalize_part(ChainOp::kDiv, step.std, step);
}

void Compiler::add_step(const OneHotStep& step) {
  if (is_float(spec_.dtype) || spec_.dtype == Dtype::kFloat16) {
    refuse(where("OneHot"), std::string("labels are ") + dtype_name(spec_.dtype) + ", expected integers");
  }
  if (step.classes < 1) refuse(where("OneHot"), "needs at least one class");
  const FieldSpec input = spec_;
  nodes_.push_back(OtherNode{{name_}, input, std::make_unique<OneHotStage>(input, step.classes, step.dtype)});
  spec_.shape.push_back(step.classes);
  spec_.dtype = step.dtype;
}

// Returns whether a window (a crop) that follows the chain can move to the place before it with the same bits.
bool Compiler::commutes(const ChainNode& chain, bool pads) const {
  for (const ChainStep& step : chain.steps) {
    if (step.pattern == Pattern::kElements) return false;
    if (!pads) continue;
    // The zeros around the image must stay zeros in the chain, which is so if it only multiplies by positive factors.
    if (step.op != ChainOp::kMul) return false;
    for (double x : step.operands) {
      if (!(x > 0)) return false;
    }
  }
  return true;
}

void Compiler::window(const ImageShape& image, const WindowStep& step) {
  FieldSpec before = spec_;
  size_t at = nodes_.size();
  while (at > 0) {
    auto* chain = std::get_if<ChainNode>(&nodes_[at - 1]);
    if (chain == nullptr || !commutes(*chain, step.padding > 0)) break;
    before.dtype = chain->input.dtype;
    --at;
  }
  WindowNode* merge = at > 0 ? std::get_if<WindowNode>(&nodes_[at - 1]) : nullptr;
  if (merge != nullptr) {
    merge->steps.push_back(step);
    sign(&merge->names);
  } else {
    nodes_.insert(nodes_.begin() + static_cast<std::ptrdiff_t>(at), WindowNode{{name_}, before, image, {step}});
    ++at;
  }
  if (step.kind == WindowStep::Kind::kCrop) {
    spec_.shape[image.height_axis] = step.height;
    spec_.shape[image.height_axis + 1] = step.width;
  }
  // The nodes that now follow the window get rows of the window's shape.
  for (; at < nodes_.size(); ++at) std::get<ChainNode>(nodes_[at]).input.shape = spec_.shape;
}

void Compiler::add_step(const FlipStep& step) {
  if (!(step.p >= 0 && step.p <= 1)) refuse(where("RandomFlip"), "p must be in [0, 1]");
  const ImageShape image = image_shape(spec_, step.layout, where("RandomFlip"));
  WindowStep window_step;
  window_step.kind = step.vertical ? WindowStep::Kind::kFlipRows : WindowStep::Kind::kFlipColumns;
  window_step.threshold = static_cast<uint64_t>(std::ldexp(step.p, 32));
  window_step.place = place_;
  window(image, window_step);
}

void Compiler::add_step(const CropStep& step) {
  const ImageShape image = image_shape(spec_, step.layout, where("RandomCrop"));
  constexpr int64_t kMostPadding = 1 << 20;
  if (step.padding < 0 || step.padding > kMostPadding) refuse(where("RandomCrop"), "padding must be in [0, 1048576]");
  if (step.height < 1 || step.width < 1 || step.height > image.height + 2 * step.padding ||
      step.width > image.width + 2 * step.padding) {
    refuse(where("RandomCrop"), "cannot cut " + std::to_string(step.height) + " x " + std::to_string(step.width) +
                                    " out of " + std::to_string(image.height) + " x " + std::to_string(image.width) +
                                    " with " + std::to_string(step.padding) + " of padding");
  }
  WindowStep window_step;
  window_step.height = step.height;
  window_step.width = step.width;
  window_step.padding = step.padding;
  window_step.place = place_;
  window(image, window_step);
}

void Compiler::add_step(const CallStep& step) {
  if (step.function == nullptr) refuse(where("function"), "is missing");
  int64_t elements = 1;
  for (int64_t extent : step.shape) {
    if (extent < 0 || __builtin_mul_overflow(elements, extent, &elements) || elements > (int64_t{1} << 40)) {
      refuse(where("function"), "has a shape that is negative or too large");
    }
  }
  nodes_.push_back(OtherNode{{name_}, spec_, std::make_unique<CallStage>(step.function, place_)});
  spec_.dtype = step.dtype;
  spec_.shape = step.shape;
}

CompiledPlan Compiler::finish() {
  if (nodes_.empty()) nodes_.push_back(ChainNode{{"copy"}, spec_, spec_.dtype, {}, 1});
  CompiledPlan plan;
  plan.output = spec_;
  auto chain_stage = [](const ChainNode& node) {
    return std::make_unique<const ChainStage>(node.input, node.to, node.steps, node.planes);
  };
  for (size_t i = 0; i < nodes_.size(); ++i) {
    const FieldSpec& input = std::visit([](const auto& node) -> const FieldSpec& { return node.input; }, nodes_[i]);
    plan.names.push_back(joined(std::visit([](const auto& node) { return node.names; }, nodes_[i])));
    if (i > 0) plan.longest_between = std::max(plan.longest_between, input.row_bytes());
    if (auto* own = std::get_if<ChainNode>(&nodes_[i])) {
      plan.stages.push_back(chain_stage(*own));
    } else if (auto* window = std::get_if<WindowNode>(&nodes_[i])) {
      std::unique_ptr<const ChainStage> then;
      if (i + 1 < nodes_.size() && std::holds_alternative<ChainNode>(nodes_[i + 1])) {
        const auto& chain = std::get<ChainNode>(nodes_[++i]);
        then = chain_stage(chain);
        plan.names.back() += "+" + joined(chain.names);
      }
      plan.stages.push_back(
          std::make_unique<WindowStage>(window->image, size_of(input.dtype), window->steps, std::move(then)));
    } else {
      plan.stages.push_back(std::move(std::get<OtherNode>(nodes_[i]).stage));
    }
  }
  return plan;
}

}  // namespace

ImageShape image_shape(const FieldSpec& spec, ImageLayout layout, const std::string& where) {
  const auto& shape = spec.shape;
  if (shape.size() == 2) return {1, shape[0], shape[1], 1, 0};
  if (shape.size() != 3) {
    refuse(where, "a row is " + shape_text(shape) + ", expected an image (H, W), (H, W, C) or (C, H, W)");
  }
  auto is_channels = [](int64_t extent) { return extent == 1 || extent == 3 || extent == 4; };
  if (layout == ImageLayout::kAuto) {
    if (is_channels(shape[0]) && is_channels(shape[2]) && shape[0] != shape[2]) {
      refuse(where, "a row is " + shape_text(shape) + ": say layout=\"HWC\" or \"CHW\"");
    }
    if (!is_channels(shape[0]) && !is_channels(shape[2])) {
      refuse(where, "a row is " + shape_text(shape) + ", without 1, 3 or 4 channels: say layout=\"HWC\" or \"CHW\"");
    }
    layout = is_channels(shape[2]) ? ImageLayout::kHwc : ImageLayout::kChw;
  }
  if (layout == ImageLayout::kHwc) return {1, shape[0], shape[1], shape[2], 0};
  return {shape[0], shape[1], shape[2], 1, 1};
}

CompiledPlan compile_plan(const FieldSpec& input, const std::vector<TransformStep>& steps, int field) {
  Compiler compiler(input, field);
  int index = 0;
  for (const TransformStep& step : steps) compiler.add(step, index++);
  return compiler.finish();
}

}  // namespace gradring
