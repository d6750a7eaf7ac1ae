// Tests of annidx/_core/gate.h: who may be inside an index at one time, closing, and the child of a
// fork. Build: g++ -std=c++17 -g -fsanitize=thread -pthread -DANNIDX_VERSION=\"t\"
//   tests/cpp/test_gate.cpp src_c/*/*.cpp   (or -fsanitize=address,undefined)
#include "../../annidx/_core/gate.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <thread>
#include <vector>

#include "check.h"

using namespace annidx_binding;
using namespace annidx_test;

namespace {

void open_new(Gate* gate) {
  gate->open(std::make_unique<annidx::Index>(annidx::Metric::dot, annidx::Dtype::float32, 3));
}

void test_one_thread() {
  Gate gate;
  CHECK(gate.enter() == Entry::closed);
  CHECK(gate.enter_alone(Work::building, 1) == Entry::closed);
  open_new(&gate);
  CHECK(!gate.closed());
  CHECK(gate.enter() == Entry::entered);
  CHECK(gate.enter() == Entry::entered);
  CHECK(gate.index()->dim() == 3);
  CHECK(gate.enter_alone(Work::building, 1) == Entry::busy);
  CHECK(gate.enter() == Entry::busy);  // someone waits to be alone
  gate.stop_waiting();
  CHECK(gate.enter() == Entry::entered);
  gate.leave();
  gate.leave();
  gate.leave();
  CHECK(gate.enter_alone(Work::building, 7) == Entry::entered);
  CHECK(gate.work() == Work::building && gate.owner() == 7);
  CHECK(gate.enter() == Entry::busy);
  CHECK(gate.enter_alone(Work::short_change, 8) == Entry::busy);
  gate.stop_waiting();
  gate.leave_alone();
  CHECK(gate.work() == Work::none);
  CHECK(gate.enter() == Entry::entered);
  gate.close();
  CHECK(gate.index() != nullptr);  // until the last one leaves
  CHECK(gate.enter() == Entry::closed);
  CHECK(gate.index() != nullptr);
  gate.leave();
  CHECK(gate.index() == nullptr);
  CHECK(gate.enter() == Entry::closed);
  gate.close();
}

void test_closing_while_alone() {
  Gate gate;
  open_new(&gate);
  CHECK(gate.enter_alone(Work::short_change, 1) == Entry::entered);
  CHECK(gate.enter_alone(Work::short_change, 2) == Entry::busy);
  gate.close();
  CHECK(gate.index() != nullptr);
  gate.leave_alone();
  CHECK(gate.index() == nullptr);
}

void test_many_threads() {
  for (int round = 0; round < 20; ++round) {
    Gate gate;
    open_new(&gate);
    std::atomic<long> readers{0}, writers{0}, reads{0}, writes{0};
    std::atomic<bool> wrong{false};
    long guarded = 0;  // only touched alone, read inside: the sanitizer watches it
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
      threads.emplace_back([&] {
        for (;;) {
          const Entry entry = gate.enter();
          if (entry == Entry::closed) return;
          if (entry == Entry::busy) {
            std::this_thread::yield();
            continue;
          }
          ++readers;
          if (writers != 0 || guarded < 0 || gate.index()->dim() != 3) wrong = true;
          ++reads;
          --readers;
          gate.leave();
        }
      });
    }
    for (unsigned long i = 0; i < 2; ++i) {
      threads.emplace_back([&, i] {
        for (;;) {
          const Entry entry = gate.enter_alone(Work::short_change, i);
          if (entry == Entry::closed) return;
          if (entry == Entry::busy) {
            std::this_thread::yield();
            continue;
          }
          if (++writers != 1 || readers != 0) wrong = true;
          ++guarded;
          ++writes;
          --writers;
          gate.leave_alone();
        }
      });
    }
    while (reads < 500 || writes < 100) std::this_thread::yield();
    gate.close();
    for (std::thread& thread : threads) thread.join();
    CHECK(!wrong);
    CHECK(gate.index() == nullptr);
  }
}

// Leaves with the number of failed checks.
template <class Work>
void in_child(const Work& work) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    failed = 0;
    ++fork_epoch;
    work();
    std::fflush(stdout);
    _exit(failed ? 1 : 0);
  }
  int status = 1;
  waitpid(child, &status, 0);
  CHECK(status == 0);
}

void test_fork() {
  Gate gate;
  open_new(&gate);
  CHECK(gate.enter() == Entry::entered);
  in_child([&] {
    // The reader is not here: alone at once.
    CHECK(gate.enter_alone(Work::short_change, 1) == Entry::entered);
    gate.leave_alone();
    CHECK(gate.enter() == Entry::entered);
    gate.close();
    gate.leave();
    CHECK(gate.index() == nullptr);
  });
  gate.leave();
  CHECK(gate.enter_alone(Work::building, 1) == Entry::entered);
  // The child leaves the index alone, its memory too; seen from here it is not lost.
  static const annidx::Index* volatile left_alone = gate.index();
  CHECK(left_alone != nullptr);
  in_child([&] {
    // Half-done by a thread that is not here.
    CHECK(gate.enter() == Entry::closed);
    CHECK(gate.enter_alone(Work::building, 1) == Entry::closed);
  });
  gate.leave_alone();
  CHECK(gate.enter() == Entry::entered);
  gate.leave();
}

}  // namespace

int main() {
  test_one_thread();
  test_closing_while_alone();
  test_many_threads();
  test_fork();
  return report();
}
