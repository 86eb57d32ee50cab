#include "program/rank_source.h"

#include <doctest/doctest.h>

#include <vector>

#include "program/replicas.h"

namespace gradring {
namespace {

// Batches of a whole batch's rows, of which this rank reads a block. It notes which rows each call of fill is for.
class Noting final : public BatchSource {
 public:
  Noting(int64_t rows, int64_t whole_rows) : rows_(rows), whole_rows_(whole_rows) {}

  Status next(Batch* batch, Deadline) noexcept override {
    *batch = Batch{};
    batch->rows = rows_;
    batch->whole_rows = whole_rows_;
    return {};
  }
  void fill(const Lane& lane, const Batch& batch) noexcept override {
    filled = split(lane, batch.rows);
    filled.begin += batch.first, filled.end += batch.first;
  }
  void release(const Batch&) noexcept override {}

  Range filled{0, 0};

 private:
  int64_t rows_, whole_rows_;
};

class Place final : public RankSteps {
 public:
  Place(int rank, int size) : rank_(rank), size_(size) {}
  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  void bring(int64_t rows, bool) noexcept override { brought.push_back(rows); }
  int64_t rows() const noexcept override { return 0; }
  bool all_ended() const noexcept override { return false; }

  std::vector<int64_t> brought;

 private:
  int rank_, size_;
};

}  // namespace

TEST_CASE("each replica of a rank fills exactly the rows of a whole batch that it reads") {
  for (const int ranks : {1, 2, 3, 4, 8}) {
    for (const int replicas : {1, 2, 3, 4, 5}) {
      for (const int lanes : {1, 2, 3}) {
        for (int64_t whole = 1; whole <= 45; ++whole) {
          for (int rank = 0; rank < ranks; ++rank) {
            CAPTURE(ranks);
            CAPTURE(replicas);
            CAPTURE(lanes);
            CAPTURE(whole);
            CAPTURE(rank);
            const Range block = rows_of(whole, rank, ranks);
            Noting own(block.end - block.begin, whole);
            Place place(rank, ranks);
            Feed feed{&own, {}, false};
            RankSource source(feed, place, false);
            Batch batch;
            REQUIRE(source.next(&batch, kNoDeadline).ok());
            REQUIRE(batch.rows == whole);
            for (int replica = 0; replica < replicas; ++replica) {
              const Range reads = rows_of(whole, rank * replicas + replica, ranks * replicas);
              int64_t next = reads.begin - block.begin;
              for (int lane = 0; lane < lanes; ++lane) {
                own.filled = {next, next};
                source.fill({nullptr, replica * lanes + lane, replicas * lanes}, batch);
                REQUIRE(own.filled.begin == next);
                next = own.filled.end;
              }
              REQUIRE(next == reads.end - block.begin);
            }
            REQUIRE(place.brought == std::vector<int64_t>{block.end - block.begin});
          }
        }
      }
    }
  }
}

TEST_CASE("the lanes of a rank with batches of its own divide its rows") {
  Noting own(7, 0);
  Place place(1, 3);
  Feed feed{&own, {}, false};
  RankSource source(feed, place, false);
  Batch batch;
  REQUIRE(source.next(&batch, kNoDeadline).ok());
  source.fill({nullptr, 0, 2}, batch);
  CHECK(own.filled.begin == 0);
  CHECK(own.filled.end == 3);
  source.fill({nullptr, 1, 2}, batch);
  CHECK(own.filled.begin == 3);
  CHECK(own.filled.end == 7);
  CHECK(place.brought == std::vector<int64_t>{7});
}

}  // namespace gradring
