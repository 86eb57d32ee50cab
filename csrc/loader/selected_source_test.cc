#include "loader/selected_source.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "loader/column_source.h"
#include "loader/scratch.h"
#include "loader/sources/concat_column.h"
#include "loader/sources/memory_column.h"

namespace gradring {
namespace {

// Makes a column whose row i is (from + i, -(from + i)).
std::shared_ptr<const Column> pairs(int64_t rows, int64_t from) {
  auto data = std::make_shared<std::vector<int64_t>>();
  for (int64_t i = 0; i < rows; ++i) data->insert(data->end(), {from + i, -(from + i)});
  ArrayLayout layout{reinterpret_cast<const std::byte*>(data->data()), {16, 8}, false};
  return std::make_shared<MemoryColumn>(FieldSpec{"x", Dtype::kInt64, {2}}, rows, std::move(layout), data);
}

std::shared_ptr<const Source> one_field(std::shared_ptr<const Column> column) {
  return std::make_shared<ColumnSource>(std::vector<std::shared_ptr<const Column>>{std::move(column)});
}

// Returns the first number of each of these rows, and checks the second.
std::vector<int64_t> read(const Source& source, const std::vector<int64_t>& samples) {
  std::vector<int64_t> rows(2 * samples.size()), firsts;
  std::byte* field = reinterpret_cast<std::byte*>(rows.data());
  const Scratch scratch(source.scratch_bytes());
  ReadRequest request;
  request.samples = samples.data();
  request.rows = static_cast<int64_t>(samples.size());
  request.fields = &field;
  request.scratch = scratch.data();
  int64_t failed = -1;
  REQUIRE(source.read(request, &failed).ok());
  for (size_t i = 0; i < samples.size(); ++i) {
    CHECK(rows[2 * i + 1] == -rows[2 * i]);
    firsts.push_back(rows[2 * i]);
  }
  return firsts;
}

std::vector<int64_t> count(int64_t rows) {
  std::vector<int64_t> numbers(static_cast<size_t>(rows));
  std::iota(numbers.begin(), numbers.end(), 0);
  return numbers;
}

TEST_CASE("a selection reads the samples that it names, more than are mapped at a time") {
  std::vector<int64_t> numbers;
  for (int64_t i = 0; i < 1000; ++i) numbers.push_back(i * 7919 % 1200);
  const auto source = select(one_field(pairs(1200, 0)), select_numbers(numbers, 1200));
  CHECK(source->length() == 1000);
  CHECK(read(*source, count(1000)) == numbers);
  std::vector<int64_t> said = {999, 0, 500};
  source->number(said.data(), 3);
  CHECK(said == std::vector<int64_t>{numbers[999], numbers[0], numbers[500]});
  CHECK_THROWS_AS(select_numbers({0, -1}, 5), Error);
  CHECK_THROWS_AS(select_numbers({5}, 5), Error);
  CHECK_THROWS_AS(select_numbers({}, 5), Error);
}

TEST_CASE("a part and its others are all samples, each once, for any order") {
  for (const bool shuffle : {false, true}) {
    for (const auto& [begin, end] : std::vector<std::pair<int64_t, int64_t>>{{0, 1}, {0, 99}, {33, 67}, {99, 100}}) {
      const auto inside = select_part({begin, end, false, shuffle, 3}, 100);
      const auto outside = select_part({begin, end, true, shuffle, 3}, 100);
      CHECK(inside->length() == end - begin);
      CHECK(inside->length() + outside->length() == 100);
      const auto whole = one_field(pairs(100, 0));
      std::vector<int64_t> all = read(*select(whole, inside), count(inside->length()));
      for (const int64_t number : read(*select(whole, outside), count(outside->length()))) all.push_back(number);
      std::sort(all.begin(), all.end());
      CHECK(all == count(100));
    }
  }
  CHECK_THROWS_AS(select_part({0, 100, true, true, 0}, 100), Error);
  CHECK_THROWS_AS(select_part({5, 5, false, true, 0}, 100), Error);
  CHECK_THROWS_AS(select_part({-1, 5, false, true, 0}, 100), Error);
  CHECK_THROWS_AS(select_part({0, 101, false, true, 0}, 100), Error);
}

TEST_CASE("columns one after the other read as one, in any order and with empty parts between") {
  const auto whole = std::make_shared<ConcatColumn>(std::vector<std::shared_ptr<const Column>>{
      pairs(0, 0), pairs(300, 0), pairs(0, 0), pairs(1, 300), pairs(99, 301)});
  CHECK(whole->length() == 400);
  const auto source = one_field(whole);
  CHECK(read(*source, count(400)) == count(400));
  std::vector<int64_t> order;
  for (int64_t i = 0; i < 400; ++i) order.push_back(i * 333 % 400);
  CHECK(read(*source, order) == order);
  CHECK(read(*source, {399, 399, 0, 300, 299, 301}) == std::vector<int64_t>{399, 399, 0, 300, 299, 301});
  ArrayLayout layout{nullptr, {8}, false};
  auto other = std::make_shared<MemoryColumn>(FieldSpec{"x", Dtype::kInt64, {}}, 1, std::move(layout), nullptr);
  CHECK_THROWS_AS(ConcatColumn({pairs(1, 0), other}), Error);
}

}  // namespace
}  // namespace gradring
