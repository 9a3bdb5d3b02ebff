/// The commands to one disk, one after the other, and the questions to its queues that the present one waits
/// for. Belongs to the control thread.
struct VbdCommands {
  /// One command: it is begun, or told why it will not be.
  struct Command {
    let begin: () -> Void
    let cancel: (VbdError) -> Void
  }

  private var waiting: [Command] = []
  private var questions: [UInt32: (VbdError?) -> Void] = [:]
  private var lastQuestion: UInt32 = 0
  /// True from the begin of a command until ``finish()``.
  private(set) var isBusy = false

  /// Puts a command at the end of the line.
  mutating func add(_ command: Command) { waiting.append(command) }

  /// The next command, which is now the present one; nil when there is none or one is under way.
  mutating func next() -> Command? {
    guard !isBusy, !waiting.isEmpty else { return nil }
    isBusy = true
    return waiting.removeFirst()
  }

  /// The present command is done.
  mutating func finish() { isBusy = false }

  /// Remembers what goes on when the queues have answered; returns the question's number.
  mutating func ask(_ then: @escaping (VbdError?) -> Void) -> UInt32 {
    lastQuestion &+= 1
    questions[lastQuestion] = then
    return lastQuestion
  }

  /// Takes out what goes on after a question.
  mutating func take(_ question: UInt32) -> ((VbdError?) -> Void)? {
    questions.removeValue(forKey: question)
  }

  /// Takes out everything that waits.
  mutating func takeAll() -> (waiting: [Command], asked: [(VbdError?) -> Void]) {
    defer { (waiting, questions) = ([], [:]) }
    return (waiting, questions.sorted { $0.key < $1.key }.map(\.value))
  }
}
