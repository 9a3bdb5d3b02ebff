import Foundation
import Synchronization

/// Whether the data threads still turn: each is asked now and then, and answers between two turns.
struct ThreadPulses {
  /// A thread that has not answered.
  struct Silence: Equatable {
    var thread: Int
    /// It waits in the kernel, which is storage's or the hypervisor's doing: no new process would fare better.
    var isInKernel: Bool
  }

  /// One thread's answers.
  private final class Pulse: Sendable {
    /// The last question that was answered.
    let answered = Atomic<UInt64>(0)
  }

  private var pulses: [Pulse]
  private var question: UInt64 = 0

  init(threadCount: Int) { pulses = (0..<threadCount).map { _ in Pulse() } }

  /// Threads that are started later are asked too, from the next question on.
  mutating func add(threadCount: Int) {
    for _ in 0..<threadCount {
      let pulse = Pulse()
      pulse.answered.store(question, ordering: .releasing)
      pulses.append(pulse)
    }
  }

  /// Asks all threads: `post` hands a thread what it is to do.
  mutating func ask(_ post: (Int, @escaping @Sendable () -> Void) -> Void) {
    question += 1
    for (number, pulse) in pulses.enumerated() {
      post(number) { [question] in
        pulse.answered.store(question, ordering: .releasing)
      }
    }
  }

  /// The threads that have not answered the last question.
  var silences: [Silence] {
    pulses.enumerated().compactMap { number, pulse in
      guard pulse.answered.load(ordering: .acquiring) < question else { return nil }
      return Silence(thread: number, isInKernel: Self.isInKernel(thread: number))
    }
  }

  /// Data threads are known by their names.
  private static func isInKernel(thread number: Int) -> Bool {
    let tasks = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/task")) ?? []
    return tasks.contains { task in
      let state = try? String(contentsOfFile: "/proc/self/task/\(task)/stat", encoding: .utf8)
      return state.map { waitsInKernel($0, thread: number) } ?? false
    }
  }

  /// Whether a task's line (proc(5), /proc/PID/stat) is the data thread's, in uninterruptible sleep.
  static func waitsInKernel(_ line: String, thread number: Int) -> Bool {
    line.contains(" (ringback-\(number)) D ")
  }
}
