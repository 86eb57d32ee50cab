// embedding, its vjp, and check_ids: see embedding.h. The vjp sorts the positions by row (a counting sort with integer atomics,
// whose places within a row are then put in order), so that each row of dtable is a sum in the order of the positions. Bytes:
// the rows that the ids name, twice; for the vjp dy once, dtable once, and about 24 bytes per id. FLOPs per element of dy: 1; all
// else moves memory.
#include "cuda/device.h"
#include "ops/cuda_call.h"
#include "ops/embedding/embedding.h"

namespace gradring {

namespace {

using namespace device;

constexpr int kTerms = 32;         // terms that are added first; their sum is one term of the whole sum
constexpr int kRankedUpTo = 1024;  // up to so many positions of a row are sorted by counting the smaller ones

__device__ __forceinline__ int64_t id_of(const Ids& ids, int64_t i) {
  return ids.wide ? static_cast<const int64_t*>(ids.data)[i] : static_cast<const int32_t*>(ids.data)[i];
}

struct Smaller {
  __device__ int64_t operator()(int64_t a, int64_t b) const { return a < b ? a : b; }
};

// One block sets *fault to the position of the first id that is no row, or to -1.
__device__ void find_fault(const Ids& ids, int64_t count, int64_t rows, int64_t* parts, int64_t* fault) {
  int64_t first = count;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t id = id_of(ids, i);
    if ((id < 0 || id >= rows) && i < first) first = i;
  }
  first = block_reduce(first, parts, Smaller{});
  if (threadIdx.x == 0) *fault = first < count ? first : -1;
}

__global__ void __launch_bounds__(kElementThreads) fault_kernel(const StepRecord* step, EmbeddingArguments g) {
  if (stopped(step)) return;
  SHARED_ARRAY(int64_t, parts, kMostWarps);
  find_fault(g.ids, g.count, g.rows, parts, g.fault);
}

// Copies rows in pieces of type Unit, of which a row has `units`.
template <class Unit>
__global__ void __launch_bounds__(kElementThreads)
    gather_kernel(const StepRecord* step, EmbeddingArguments g, int64_t units) {
  if (stopped(step)) return;
  for (int64_t at = thread_in_grid(); at < g.count * units; at += threads_in_grid()) {
    const int64_t i = at / units, id = id_of(g.ids, i);
    const bool inside = id >= 0 && id < g.rows;
    const Unit* from = static_cast<const Unit*>(g.table) + id * units + (at - i * units);
    if constexpr (sizeof(Unit) == 16) {
      Vector16<uint32_t> vector{};
      if (inside) vector = load16(reinterpret_cast<const uint32_t*>(from));
      store16(reinterpret_cast<uint32_t*>(static_cast<Unit*>(g.y) + at), vector);
    } else {
      static_cast<Unit*>(g.y)[at] = inside ? *from : Unit{};
    }
  }
}

template <class Unit>
int gather(const OpCall& call, const CudaQueue& queue, const EmbeddingArguments& g) noexcept {
  const int64_t units = g.row_bytes / static_cast<int64_t>(sizeof(Unit));
  const StepRecord* step = call.step;
  return LAUNCH(gather_kernel<Unit>, dim3(element_blocks(g.count * units, 1, queue.processors)), dim3(kElementThreads),
                0, stream_of(queue), step, g, units);
}

Ids ids_of(const Tensor& tensor) noexcept { return {tensor.data, tensor.dtype == Dtype::kInt64}; }

int forward(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &ids = operand(call, "ids"), &table = operand(call, "table");
  EmbeddingArguments g;
  g.count = ids.elements(), g.rows = table.shape[0], g.ids = ids_of(ids);
  g.row_bytes = table.shape[1] * static_cast<int64_t>(size_of(table.dtype));
  g.table = table.data, g.y = operand(call, "y").data, g.fault = operand(call, "fault").as<int64_t>();
  const StepRecord* step = call.step;
  int code = 0;
  if (g.fault) code = LAUNCH(fault_kernel, dim3(1), dim3(kElementThreads), 0, stream_of(queue), step, g);
  if (code != 0 || g.count == 0 || g.row_bytes == 0) return code;
  const auto bits =
      static_cast<uintptr_t>(g.row_bytes) | reinterpret_cast<uintptr_t>(g.table) | reinterpret_cast<uintptr_t>(g.y);
  if (bits % 16 == 0) return gather<Vector16<uint32_t>>(call, queue, g);
  return bits % 8 == 0 ? gather<uint64_t>(call, queue, g) : gather<uint32_t>(call, queue, g);
}

// The scratch memory of the vjp: where each row's positions begin, a cursor per row, the positions by row, and the same in order.
struct Segments {
  int32_t *first, *cursor, *order, *sorted;

  Segments(void* memory, int64_t count, int64_t rows) noexcept
      : first(static_cast<int32_t*>(memory)), cursor(first + rows + 1), order(cursor + rows), sorted(order + count) {}
  static size_t bytes(int64_t count, int64_t rows) noexcept { return static_cast<size_t>(2 * (count + rows) + 1) * 4; }
};

__global__ void __launch_bounds__(kElementThreads) clear_kernel(const StepRecord* step, int32_t* cursor, int64_t rows) {
  if (stopped(step)) return;
  for (int64_t r = thread_in_grid(); r < rows; r += threads_in_grid()) cursor[r] = 0;
}

__global__ void __launch_bounds__(kElementThreads)
    count_kernel(const StepRecord* step, Ids ids, int64_t count, int64_t rows, int32_t* cursor) {
  if (stopped(step)) return;
  for (int64_t i = thread_in_grid(); i < count; i += threads_in_grid()) {
    const int64_t id = id_of(ids, i);
    if (id >= 0 && id < rows) atomic_add<Order::kRelaxed>(&cursor[id], 1);
  }
}

// One block sets first[r] to the sum of the counts before row r, which is also where the cursor starts.
__global__ void __launch_bounds__(kElementThreads)
    scan_kernel(const StepRecord* step, Ids ids, int64_t count, int64_t rows, Segments s, int64_t* fault) {
  if (stopped(step)) return;
  SHARED_ARRAY(int64_t, parts, kMostWarps);
  if (fault) find_fault(ids, count, rows, parts, fault);
  SHARED_ARRAY(int32_t, warps, kMostWarps);
  int32_t before = 0;
  for (int64_t base = 0; base < rows; base += blockDim.x) {
    const int64_t r = base + threadIdx.x;
    const int32_t mine = r < rows ? s.cursor[r] : 0;
    int32_t sum = mine;  // the sum over the warp's threads up to this one
    for (int distance = 1; distance < 32; distance *= 2) {
      const int32_t other = __shfl_up_sync(kWholeWarp, sum, static_cast<unsigned>(distance));
      if (lane_in_warp() >= distance) sum += other;
    }
    if (lane_in_warp() == 31) warps[warp_in_block()] = sum;
    __syncthreads();
    int32_t total = 0, offset = 0;
    for (int warp = 0; warp < warps_in_block(); ++warp) {
      if (warp < warp_in_block()) offset += warps[warp];
      total += warps[warp];
    }
    if (r < rows) s.first[r] = s.cursor[r] = before + offset + sum - mine;
    before += total;
    __syncthreads();
  }
  if (threadIdx.x == 0) s.first[rows] = before;
}

__global__ void __launch_bounds__(kElementThreads)
    place_kernel(const StepRecord* step, Ids ids, int64_t count, int64_t rows, Segments s) {
  if (stopped(step)) return;
  for (int64_t i = thread_in_grid(); i < count; i += threads_in_grid()) {
    const int64_t id = id_of(ids, i);
    if (id >= 0 && id < rows) s.order[atomic_add<Order::kRelaxed>(&s.cursor[id], 1)] = static_cast<int32_t>(i);
  }
}

// Puts the positions of row r, which are order[begin, begin + n), in ascending order into `sorted`. All threads of a
// block call it.
__device__ void put_in_order(const Ids& ids, int64_t count, int64_t r, int begin, int n, const Segments& s,
                             int32_t* warps) {
  if (n <= kRankedUpTo) {
    for (int k = static_cast<int>(threadIdx.x); k < n; k += static_cast<int>(blockDim.x)) {
      const int32_t mine = s.order[begin + k];
      int rank = 0;
      for (int other = 0; other < n; ++other) rank += s.order[begin + other] < mine;
      s.sorted[begin + rank] = mine;
    }
  } else {
    // The row has so many positions that it costs no more to read all ids again, and to keep those of this row in their
    // order.
    int taken = 0;
    for (int64_t base = 0; base < count; base += blockDim.x) {
      const int64_t i = base + threadIdx.x;
      const bool mine = i < count && id_of(ids, i) == r;
      const unsigned votes = __ballot_sync(kWholeWarp, mine);
      if (lane_in_warp() == 0) warps[warp_in_block()] = __popc(votes);
      __syncthreads();
      int before = taken + __popc(votes & ((1u << lane_in_warp()) - 1));
      for (int warp = 0; warp < warps_in_block(); ++warp) {
        if (warp < warp_in_block()) before += warps[warp];
        taken += warps[warp];
      }
      if (mine && before < n) s.sorted[begin + before] = static_cast<int32_t>(i);
      __syncthreads();
    }
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kElementThreads)
    sum_kernel(const StepRecord* step, EmbeddingVjpArguments<T> g, Segments s) {
  using W = Wide<T>;
  if (stopped(step)) return;
  SHARED_ARRAY(int32_t, warps, kMostWarps);
  for (int64_t r = blockIdx.x; r < g.rows; r += gridDim.x) {
    const int begin = s.first[r], end = s.first[r + 1];
    if (begin < end) put_in_order(g.ids, g.count, r, begin, end - begin, s, warps);
    for (int64_t j = threadIdx.x; j < g.columns; j += blockDim.x) {
      W total = 0;
      for (int first = begin; first < end; first += kTerms) {
        const int last = first + kTerms < end ? first + kTerms : end;
        W block = 0;
        GRADRING_UNROLL
        for (int i = first; i < last; ++i) block += widen(g.dy[s.sorted[i] * g.columns + j]);
        total += block;
      }
      g.dtable[r * g.columns + j] = narrow<T>(total);
    }
  }
}

template <class T>
int vjp(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor &dy = operand(call, "dy"), &ids = operand(call, "ids"), &dtable = operand(call, "dtable");
  EmbeddingVjpArguments<T> g;
  g.count = ids.elements(), g.rows = dtable.shape[0], g.columns = dtable.shape[1], g.ids = ids_of(ids);
  g.dy = dy.as<const T>(), g.dtable = dtable.as<T>(), g.fault = operand(call, "fault").as<int64_t>();
  const Segments s(queue.scratch, g.count, g.rows);
  const dim3 threads(kElementThreads), by_row(blocks_for(g.rows, queue.processors)),
      by_id(blocks_for(g.count, queue.processors));
  cudaStream_t stream = stream_of(queue);
  const StepRecord* step = call.step;
  int code = LAUNCH(clear_kernel, by_row, threads, 0, stream, step, s.cursor, g.rows);
  if (code == 0) code = LAUNCH(count_kernel, by_id, threads, 0, stream, step, g.ids, g.count, g.rows, s.cursor);
  if (code == 0) code = LAUNCH(scan_kernel, dim3(1), threads, 0, stream, step, g.ids, g.count, g.rows, s, g.fault);
  if (code == 0) code = LAUNCH(place_kernel, by_id, threads, 0, stream, step, g.ids, g.count, g.rows, s);
  if (code != 0 || g.rows * g.columns == 0) return code;
  const int64_t most = int64_t{8} * queue.processors;
  return LAUNCH(sum_kernel<T>, dim3(static_cast<unsigned>(g.rows < most ? g.rows : most)), threads, 0, stream, step, g,
                s);
}

size_t scratch(const OpCall& call, const CudaQueue&) noexcept {
  return Segments::bytes(operand(call, "ids").elements(), operand(call, "dtable").shape[0]);
}

CudaRun choose_forward(const OpCall& call) noexcept {
  return has_only(call, {"ids", "table", "y", "fault"}) ? forward : nullptr;
}
CudaRun choose_vjp(const OpCall& call) noexcept {
  const bool known = has_only(call, {"dy", "ids", "dtable", "fault"}) && fits_int(operand(call, "ids").elements());
  return known ? by_real_cuda<vjp<float>, vjp<double>>(call) : nullptr;
}

__global__ void check_ids_kernel(StepRecord* step, Ids ids, int64_t places, const int64_t* fault) {
  if (stopped(step) || *fault < 0) return;
  step->fault = Fault::kId;
  step->fault_row = *fault / places, step->fault_place = *fault % places, step->fault_value = id_of(ids, *fault);
}

int check_ids(const OpCall& call, const CudaQueue& queue) noexcept {
  const Tensor& ids = operand(call, "ids");
  const int64_t places = ids.shape[0] ? ids.elements() / ids.shape[0] : 1;
  return LAUNCH(check_ids_kernel, dim3(1), dim3(1), 0, stream_of(queue), call.step, ids_of(ids), places,
                operand(call, "fault").as<const int64_t>());
}

}  // namespace

extern const CudaKernel embedding_cuda_kernels[] = {
    {.op = "embedding", .choose = choose_forward},
    {.op = "embedding_vjp", .choose = choose_vjp, .scratch = scratch},
    {.op = "check_ids", .choose = always_cuda<check_ids>},
};
extern const size_t embedding_cuda_kernel_count = std::size(embedding_cuda_kernels);

}  // namespace gradring
