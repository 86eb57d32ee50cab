// Resources: what a program needs beside memory and numbers, such as a function to call. An instruction names one by its
// number in the program's table, so no address travels as a number and a program stays data.
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

  // Called by lane 0 while the other lanes wait. memory: the addresses of the operands, in the schema's order. Returns
  // false to end the step with Fault::kCallback; whoever made the callback knows why.
  virtual bool call(void* const* memory, int count) noexcept = 0;
};

}  // namespace gradring
