#include <charconv>
#include <cstring>

#include "ops/products_cuda.h"

namespace gradring::cuda {

namespace {

constexpr const char* kHead = "cublasLt ";
constexpr size_t kMostChoices = 1 << 16;  // a program has far fewer products

// Numbers of a line, each before a space or the line's end.
class Reader {
 public:
  Reader(const char* begin, const char* end) : at_(begin), end_(end) {}

  template <class T>
  bool number(T* value, int base = 10) {
    const auto [next, error] = std::from_chars(at_, end_, *value, base);
    if (error != std::errc{}) return false;
    at_ = next;
    if (at_ == end_) return true;
    return *at_++ == ' ';
  }
  bool flag(bool* value) {
    int read = 0;
    if (!number(&read) || read < 0 || read > 1) return false;
    *value = read == 1;
    return true;
  }
  bool done() const { return at_ == end_; }
  std::string rest() const { return {at_, end_}; }

 private:
  const char *at_, *end_;
};

bool read_choice(Reader line, RecordedAlgorithm* choice) {
  CudaProduct& p = choice->product;
  for (int64_t* each : {&p.m, &p.n, &p.k, &p.lda, &p.ldb, &p.ldc}) {
    if (!line.number(each) || *each < 1) return false;
  }
  if (!line.flag(&p.trans_a) || !line.flag(&p.trans_b)) return false;
  int dtypes = 0;
  if (!line.number(&dtypes) || dtypes < 0 || dtypes > static_cast<int>(ProductDtypes::kFloat16ToFloat32)) return false;
  p.dtypes = static_cast<ProductDtypes>(dtypes);
  if (!line.number(&p.alignment) || p.alignment < 1 || p.alignment > 256) return false;
  if (!line.number(&choice->workspace_bytes)) return false;
  for (uint64_t& word : choice->algorithm.data) {
    if (!line.number(&word, 16)) return false;
  }
  return line.done();
}

std::string hexadecimal(uint64_t word) {
  char text[16];
  return {text, std::to_chars(text, text + sizeof text, word, 16).ptr};
}

}  // namespace

std::string choices_text(const ProductsOrigin& origin, const std::vector<RecordedAlgorithm>& choices) {
  std::string text = kHead + std::to_string(origin.library) + " " + origin.device + "\n";
  for (const RecordedAlgorithm& each : choices) {
    const CudaProduct& p = each.product;
    for (const int64_t number : {p.m, p.n, p.k, p.lda, p.ldb, p.ldc}) text += std::to_string(number) + " ";
    for (const bool flag : {p.trans_a, p.trans_b}) text += flag ? "1 " : "0 ";
    text += std::to_string(static_cast<int>(p.dtypes)) + " " + std::to_string(p.alignment) + " ";
    text += std::to_string(each.workspace_bytes);
    for (const uint64_t word : each.algorithm.data) text += " " + hexadecimal(word);
    text += "\n";
  }
  return text;
}

bool read_choices(const std::string& text, ProductsOrigin* origin, std::vector<RecordedAlgorithm>* choices) {
  choices->clear();
  const char* at = text.data();
  const char* const end = at + text.size();
  for (bool head = true; at < end; head = false) {
    const auto* line_end = static_cast<const char*>(std::memchr(at, '\n', static_cast<size_t>(end - at)));
    if (!line_end || choices->size() == kMostChoices) return false;  // a text that was cut
    if (head) {
      if (text.compare(0, std::strlen(kHead), kHead) != 0) return false;
      Reader line(at + std::strlen(kHead), line_end);
      if (!line.number(&origin->library)) return false;
      origin->device = line.rest();
    } else {
      RecordedAlgorithm choice;
      if (!read_choice(Reader(at, line_end), &choice)) return false;
      choices->push_back(choice);
    }
    at = line_end + 1;
  }
  return !text.empty();
}

}  // namespace gradring::cuda
