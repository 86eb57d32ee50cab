#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <thread>
#include <vector>

#include "gradring/gradring.h"

TEST_CASE("groups of threads reduce, through the C interface") {
  gradring_group* groups[3] = {};
  REQUIRE(gradring_group_create_threads(3, 20.0, groups) == GRADRING_OK);
  int good[3] = {};
  std::vector<std::thread> threads;
  for (int rank = 0; rank < 3; ++rank) {
    threads.emplace_back([&, rank] {
      gradring_group* const group = groups[rank];
      void* memory = nullptr;
      const int64_t count = 50000;
      if (gradring_group_allocate(group, static_cast<uint64_t>(count) * 4, &memory) != GRADRING_OK) return;
      auto* const x = static_cast<float*>(memory);
      std::vector<double> y(5, rank + 1.0);
      for (int64_t i = 0; i < count; ++i) x[i] = static_cast<float>(rank);
      bool fine = gradring_all_reduce(group, x, x, count, GRADRING_FLOAT32, GRADRING_MEAN) == GRADRING_OK;
      fine = gradring_all_reduce(group, y.data(), y.data(), 5, GRADRING_FLOAT64, GRADRING_PROD) == GRADRING_OK && fine;
      fine = gradring_barrier(group) == GRADRING_OK && fine;
      for (int64_t i = 0; i < count; ++i) fine = fine && x[i] == 1;
      good[rank] = fine && y[4] == 6 && gradring_group_rank(group) == rank && gradring_group_size(group) == 3;
      gradring_group_free(group, memory);
    });
  }
  for (auto& thread : threads) thread.join();
  for (int rank = 0; rank < 3; ++rank) CHECK(good[rank] == 1);
  for (gradring_group* group : groups) gradring_group_destroy(group);
}

TEST_CASE("the C interface of groups refuses what makes no sense, and says why") {
  gradring_group* group = nullptr;
  int fd = -1;
  CHECK(gradring_group_create_threads(0, 1, &group) == GRADRING_INVALID_ARGUMENT);
  CHECK(gradring_group_create_threads(1, 0, &group) == GRADRING_INVALID_ARGUMENT);
  CHECK(std::strstr(gradring_last_error(), "timeout is 0 s") != nullptr);
  CHECK(gradring_group_segment(1 << 20, &fd) == GRADRING_INVALID_ARGUMENT);
  CHECK(gradring_barrier(nullptr) == GRADRING_INVALID_ARGUMENT);
  REQUIRE(gradring_group_create_threads(1, 1, &group) == GRADRING_OK);
  float x = 1;
  CHECK(gradring_all_reduce(group, &x, &x, -1, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_INVALID_ARGUMENT);
  CHECK(gradring_all_reduce(group, nullptr, &x, 1, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_INVALID_ARGUMENT);
  CHECK(gradring_all_reduce(group, &x, &x, 1, GRADRING_INT32, GRADRING_MEAN) == GRADRING_INVALID_ARGUMENT);
  CHECK(gradring_all_reduce(group, &x, &x, 1, 99, GRADRING_SUM) == GRADRING_INVALID_ARGUMENT);
  float many[50] = {};
  CHECK(gradring_all_reduce(group, many, many + 1, 40, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_INVALID_ARGUMENT);
  CHECK(gradring_all_reduce(group, many + 9, many, 10, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_INVALID_ARGUMENT);
  CHECK(std::strstr(gradring_last_error(), "overlaps") != nullptr);
  CHECK(gradring_all_reduce(group, many, many + 10, 10, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_OK);
  CHECK(gradring_all_reduce(group, many, many, 10, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_OK);
  CHECK(gradring_all_reduce(group, &x, &x, 1, GRADRING_FLOAT32, GRADRING_SUM) == GRADRING_OK);
  gradring_group_destroy(group);
  gradring_group_destroy(nullptr);
}

TEST_CASE("a process joins by descriptors, through the C interface") {
  int segment = -1, data = -1;
  REQUIRE(gradring_group_segment(1, &segment) == GRADRING_OK);
  REQUIRE(gradring_group_data_segment(&data) == GRADRING_OK);
  const int none = -1;
  gradring_group* group = nullptr;
  CHECK(gradring_group_join(segment, 1, 1, 0, &none, &data, 1, &group) == GRADRING_INVALID_ARGUMENT);
  REQUIRE(gradring_group_join(segment, 0, 1, 0, &none, &data, 1, &group) == GRADRING_OK);
  CHECK(gradring_barrier(group) == GRADRING_OK);
  gradring_group_destroy(group);
  close(segment);
  close(data);
}
