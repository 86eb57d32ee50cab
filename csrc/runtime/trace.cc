#include "runtime/trace.h"

#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <unordered_set>
#include <vector>

namespace gradring {

std::atomic<bool> trace_is_on{false};

namespace {

struct Event {
  const char* name;
  int64_t begin;
  int64_t end;
  int64_t number;
};

constexpr size_t kChunk = 1024;  // events

struct Chunk {
  Event events[kChunk];
  std::unique_ptr<Chunk> next;
};

struct Buffer {
  ~Buffer() {
    while (first) first = std::move(first->next);  // a loop and no recursion, because the chain may be long
  }

  std::atomic<uint64_t> session{0};
  std::atomic<size_t> size{0};
  std::atomic<size_t> dropped{0};
  std::atomic<bool> orphaned{false};
  std::unique_ptr<Chunk> first;
  Chunk* last = nullptr;  // only the owner uses it
  long thread_id = 0;
  char thread_name[16] = {0};
};

struct Registry {
  std::mutex mutex;
  std::vector<std::unique_ptr<Buffer>> buffers;
  std::unordered_set<std::string> names;
};

// The registry is never destroyed, because threads may record while the process exits.
Registry& registry() {
  static Registry& instance = *[] {
    auto* made = new Registry;
    pthread_atfork([] { registry().mutex.lock(); }, [] { registry().mutex.unlock(); },
                   [] { registry().mutex.unlock(); });
    return made;
  }();
  return instance;
}

std::atomic<uint64_t> session{0};
std::atomic<size_t> limit{0};

// Marks a thread's buffer as orphaned when the thread ends. The buffer lives on until the next trace_start.
struct Handle {
  Buffer* buffer = nullptr;
  ~Handle() {
    if (buffer) buffer->orphaned.store(true, std::memory_order_release);
  }
};
thread_local Handle handle;

constexpr long kFirstRow = 1L << 30;  // beyond the number of any thread
std::atomic<long> rows{0};

[[gnu::noinline]] Buffer* add(std::unique_ptr<Buffer> made) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  all.buffers.push_back(std::move(made));
  return all.buffers.back().get();
}

Buffer* this_threads_buffer() noexcept {
  if (handle.buffer) return handle.buffer;
  try {
    auto made = std::make_unique<Buffer>();
    made->thread_id = syscall(SYS_gettid);
    pthread_getname_np(pthread_self(), made->thread_name, sizeof made->thread_name);
    handle.buffer = add(std::move(made));
  } catch (...) {  // out of memory: this span is lost
  }
  return handle.buffer;
}

[[gnu::noinline]] void record(Buffer* buffer, const char* name, int64_t begin, int64_t end, int64_t number) noexcept {
  // trace_write skips a buffer of an older session, so the owner may empty it here.
  const uint64_t now = session.load(std::memory_order_relaxed);
  if (buffer->session.load(std::memory_order_relaxed) != now) {
    buffer->size.store(0, std::memory_order_relaxed);
    buffer->dropped.store(0, std::memory_order_relaxed);
    buffer->last = buffer->first.get();
    buffer->session.store(now, std::memory_order_release);
  }
  const size_t size = buffer->size.load(std::memory_order_relaxed);
  bool room = size < limit.load(std::memory_order_relaxed);
  if (room && size % kChunk == 0 && (size || !buffer->first)) {
    std::unique_ptr<Chunk>& link = size ? buffer->last->next : buffer->first;
    if (!link) link.reset(new (std::nothrow) Chunk);
    if (link) buffer->last = link.get();
    room = link != nullptr;
  }
  if (!room) {
    buffer->dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  buffer->last->events[size % kChunk] = {name, begin, end, number};
  buffer->size.store(size + 1, std::memory_order_release);
}

void write_text(std::FILE* file, const char* text) {
  for (; *text; ++text) {
    const auto c = static_cast<unsigned char>(*text);
    if (c == '"' || c == '\\') {
      std::fprintf(file, "\\%c", c);
    } else if (c < 0x20) {
      std::fprintf(file, "\\u%04x", c);
    } else {
      std::fputc(c, file);
    }
  }
}

void write_thread(std::FILE* file, const Buffer& buffer, const char*& separator) {
  const int process = getpid();
  std::fprintf(file, "%s{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":%d,\"tid\":%ld,\"args\":{\"name\":\"", separator,
               process, buffer.thread_id);
  separator = ",\n";
  write_text(file, buffer.thread_name);
  std::fprintf(file, "\",\"dropped\":%zu}}", buffer.dropped.load(std::memory_order_relaxed));
  const size_t size = buffer.size.load(std::memory_order_acquire);
  const Chunk* chunk = buffer.first.get();
  for (size_t i = 0; i < size; ++i) {
    if (i && i % kChunk == 0) chunk = chunk->next.get();
    const Event& event = chunk->events[i % kChunk];
    std::fprintf(file, ",\n{\"ph\":\"X\",\"name\":\"");
    write_text(file, event.name);
    const long long begin = event.begin, length = event.end - event.begin;
    // Print microseconds as two integers, because the locale chooses printf's decimal point.
    std::fprintf(file, "\",\"pid\":%d,\"tid\":%ld,\"ts\":%lld.%03lld,\"dur\":%lld.%03lld", process, buffer.thread_id,
                 begin / 1000, begin % 1000, length / 1000, length % 1000);
    if (event.number >= 0) std::fprintf(file, ",\"args\":{\"number\":%lld}", static_cast<long long>(event.number));
    std::fputc('}', file);
  }
}

}  // namespace

void trace_start(size_t events_per_thread) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  std::erase_if(all.buffers, [](const auto& buffer) { return buffer->orphaned.load(std::memory_order_acquire); });
  limit.store(events_per_thread, std::memory_order_relaxed);
  session.store(session.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  trace_is_on.store(true, std::memory_order_relaxed);
}

void trace_stop() noexcept { trace_is_on.store(false, std::memory_order_relaxed); }

void trace_record(const char* name, int64_t begin, int64_t end, int64_t number) noexcept {
  if (Buffer* const buffer = this_threads_buffer()) record(buffer, name, begin, end, number);
}

TraceRow::TraceRow(const char* name) {
  auto made = std::make_unique<Buffer>();
  made->thread_id = kFirstRow + rows.fetch_add(1, std::memory_order_relaxed);
  std::strncpy(made->thread_name, name, sizeof made->thread_name - 1);
  buffer_ = add(std::move(made));
}

TraceRow::~TraceRow() { static_cast<Buffer*>(buffer_)->orphaned.store(true, std::memory_order_release); }

void TraceRow::record(const char* name, int64_t begin, int64_t end, int64_t number) noexcept {
  gradring::record(static_cast<Buffer*>(buffer_), name, begin, end, number);
}

Status trace_write(const char* path) noexcept {
  std::FILE* file = std::fopen(path, "we");
  if (!file) return Status(Code::kIo, "[trace] cannot write %s: %s", path, std::strerror(errno));
  {
    Registry& all = registry();
    const std::lock_guard lock(all.mutex);
    std::fputs("{\"displayTimeUnit\":\"ns\",\"traceEvents\":[\n", file);
    const char* separator = "";
    const uint64_t now = session.load(std::memory_order_relaxed);
    for (const auto& buffer : all.buffers) {
      if (buffer->session.load(std::memory_order_acquire) == now) write_thread(file, *buffer, separator);
    }
    std::fputs("\n]}\n", file);
  }
  const bool failed = std::ferror(file) != 0;
  if (std::fclose(file) != 0 || failed) {
    return Status(Code::kIo, "[trace] cannot write %s: %s", path, std::strerror(errno));
  }
  return {};
}

const char* trace_name(std::string_view name) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  return all.names.emplace(name).first->c_str();
}

}  // namespace gradring
