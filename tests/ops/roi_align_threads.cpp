// Runs the CUDA form of RoIAlign with one thread of the host per CUDA thread: barriers are real,
// atomics atomic and shared memory is memory, for the sanitizers to watch. Compiled by
// test_roi_align_threads.py, which also makes copies of roi_align_block.h with faults planted.
//
//   roi_align_threads CASES RESULTS [FAULT], a fault being "plain add" (no atomics), "two writers"
//   (see planted()) or the number of a barrier to leave out
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#include <atomic>
#include <barrier>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <limits>
#include <memory>
#include <string>
#include <thread>

#include "roi_align_launches.h"

namespace {

using namespace seg_plugins::roi_align;

// Planted faults. Memory is then zero at the start instead of garbage: a program that runs too
// early is to be caught for its race, not for a wild index.
int left_out_barrier = -1;
bool plain_add = false, two_writers = false;
char garbage = 0x7f;

// What the threads of one block share.
struct Team {
  std::barrier<> barrier;
  std::unique_ptr<char[]> memory;  // exactly as much as the launch asked for
  explicit Team(int threads) : barrier(threads) {}
};

// A thread's view of its block, as DeviceBlock of the CUDA source.
struct ThreadBlock {
  int index, size, thread;
  Team& team;
  std::atomic<bool>& failed;
  int site = -1;

  char* shared() { return team.memory.get(); }

  // The copies call these two: at(number) names the barrier of the next each(), and what one thread
  // alone may do is done by every thread up to planted().
  ThreadBlock& at(int number) {
    site = number;
    return *this;
  }
  int planted() const { return two_writers; }

  template <class F>
  void each(const F& f) {
    const bool wait = site < 0 || site != left_out_barrier;
    f(thread);
    if (wait) team.barrier.arrive_and_wait();
  }

  template <class S>
  struct PerThread {
    S state;
    explicit PerThread(const ThreadBlock&) {}
    S& operator[](int) { return state; }
  };

  // Relaxed, as atomicAdd() is: it orders nothing else.
  template <class A, int L>
  void add(A* to, const ArrayPack<A, L>& pack) {
    for (int i = 0; i < L; ++i) {
      if (plain_add) {
        to[i] += pack.value[i];
      } else {
        std::atomic_ref<A>(to[i]).fetch_add(pack.value[i], std::memory_order_relaxed);
      }
    }
  }

  void check(bool condition) {
    if (!condition) failed.store(true, std::memory_order_relaxed);
  }
};

// Two blocks run at a time, with nothing between them: a race between blocks shows as well.
struct ThreadedDevice {
  std::atomic<bool> failed{false};

  template <class Program>
  void launch(int64_t blocks, int threads, int64_t bytes, const Program& program) {
    const int teams = int(std::min<int64_t>(2, blocks));
    std::vector<std::unique_ptr<Team>> running;
    std::vector<std::thread> workers;
    for (int t = 0; t < teams; ++t) {
      Team& team = *running.emplace_back(std::make_unique<Team>(threads));
      for (int thread = 0; thread < threads; ++thread) {
        workers.emplace_back([=, this, &team, &program] {
          for (int64_t i = t; i < blocks; i += teams) {
            if (thread == 0) {
              team.memory.reset(new char[bytes]);
              std::memset(team.memory.get(), garbage, bytes);
            }
            team.barrier.arrive_and_wait();
            ThreadBlock block{int(i), threads, thread, team, failed};
            program(block);
            team.barrier.arrive_and_wait();
          }
        });
      }
    }
    for (std::thread& worker : workers) worker.join();
  }
};

// ---------------------------------------------------------------------------- cases and results

template <class V>
std::vector<V> read(std::istream& from, int64_t count) {
  std::vector<V> values(count);
  from.read(reinterpret_cast<char*>(values.data()), count * int64_t(sizeof(V)));
  return values;
}

template <class V>
void write(std::ostream& to, const std::vector<V>& values) {
  to.write(reinterpret_cast<const char*>(values.data()), values.size() * int64_t(sizeof(V)));
}

template <class V>
struct Pyramid {
  std::vector<std::vector<V>> levels;

  template <class S>
  Pyramid(const BlockSettings<S>& s, V value) {
    for (int i = 0; i < s.levels; ++i) {
      levels.emplace_back(int64_t(s.batch) * s.channels * s.heights[i] * s.widths[i], value);
    }
  }

  template <class M = V>
  Maps<M> maps() {
    Maps<M> to{};
    for (size_t i = 0; i < levels.size(); ++i) to.level[i] = levels[i].data();
    return to;
  }
};

// Results: the output, its winners (maximum only), the gradients in any order as float, and in the
// fixed order as T (mean) or float (maximum).
template <class T, int L>
bool run_case(std::istream& from, std::ostream& to, const int* ints, int threads, bool maximum) {
  const auto doubles = read<double>(from, 1 + kMaxLevels);
  const auto s = read_settings<float>(ints, doubles.data());
  const auto boxes = read<float>(from, 5 * int64_t(s.rois));
  Pyramid<T> features(s, T(0));
  for (auto& level : features.levels) level = read<T>(from, level.size());
  const int64_t count = int64_t(s.rois) * s.channels * s.height * s.width;
  const auto grad = read<T>(from, count);

  const float nan = std::numeric_limits<float>::quiet_NaN();
  ThreadedDevice device;
  const Launches<ThreadedDevice, T, float, L> launches{s, threads, device};
  std::vector<T> output(count, T(nan));
  std::vector<int> winners(maximum ? count : 0, -7);
  int* const winner_data = maximum ? winners.data() : nullptr;
  launches.pool(features.template maps<const T>(), boxes.data(), output.data(), winner_data);
  write(to, output);
  write(to, winners);
  for (const bool fixed_order : {false, true}) {
    Pyramid<float> sums(s, 0.0f);
    Pyramid<T> written(s, T(nan));  // the tiles write every pixel
    launches.backward(grad.data(), winner_data, boxes.data(), fixed_order, sums.maps(),
                      written.maps());
    const bool tiles = fixed_order && !maximum;
    for (int i = 0; i < s.levels; ++i) {
      tiles ? write(to, written.levels[i]) : write(to, sums.levels[i]);
    }
  }
  return !device.failed;
}

}  // namespace

int main(int count, char** arguments) {
  std::ifstream from(arguments[1], std::ios::binary);
  std::ofstream to(arguments[2], std::ios::binary);
  if (count > 3) {
    garbage = 0;
    const std::string fault = arguments[3];
    plain_add = fault == "plain add";
    two_writers = fault == "two writers";
    if (!plain_add && !two_writers) left_out_barrier = std::stoi(fault);
  }
  // dtype (0 float, 1 half, 2 bfloat16), lanes, maximum, threads, then the settings.
  constexpr int kInts = 4 + 11 + 2 * kMaxLevels;
  for (int number = 0;; ++number) {
    const auto ints = read<int>(from, kInts);
    if (!from) return 0;
    const int dtype = ints[0], lanes = ints[1];
    // Half in packs and bfloat16 singly; both ways differ in nothing but the type's name.
    const auto run = dtype == 0 && lanes == 4   ? run_case<float, 4>
                     : dtype == 0 && lanes == 1 ? run_case<float, 1>
                     : dtype == 1 && lanes == 8 ? run_case<c10::Half, 8>
                     : dtype == 2 && lanes == 1 ? run_case<c10::BFloat16, 1>
                                                : nullptr;
    if (!run) {
      std::printf("case %d: packs of %d are not compiled for dtype %d\n", number, lanes, dtype);
      return 1;
    }
    if (!run(from, to, ints.data() + 4, ints[3], ints[2] != 0)) {
      std::printf("case %d: a device assertion failed\n", number);
      return 1;
    }
  }
}
