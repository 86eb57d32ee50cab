// Resources: objects other than memory and numbers that a program needs, such as a function to call. An instruction refers to one
// by its number in the program's table and not by its address, so a program is plain data.
#pragma once

namespace gradring {

class Resource {
 public:
  Resource() = default;
  Resource(const Resource&) = delete;
  Resource& operator=(const Resource&) = delete;
  virtual ~Resource() = default;

  virtual const char* kind() const noexcept = 0;  // "callback": what an attribute of type kResource asks for
};

// A function outside the program, such as a Python function.
class Callback : public Resource {
 public:
  static constexpr const char* kKind = "callback";
  const char* kind() const noexcept override { return kKind; }

  // Lane 0 calls this while the other lanes wait. `memory` has the addresses of the operands, in the schema's order. If it returns
  // false, the step ends with Fault::kCallback; the callback's owner keeps the reason.
  virtual bool call(void* const* memory, int count) noexcept = 0;
};

}  // namespace gradring
