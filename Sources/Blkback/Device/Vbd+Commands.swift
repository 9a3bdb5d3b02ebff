import RingKit

/// Commands to a disk run one after the other, each when the queues are neither being made nor ended; what
/// they need of the queues comes back as an event.
extension Vbd {
  /// Runs `body` when it is its turn. `body` ends with ``finish(_:)``; `cancel` is called instead when the
  /// disk goes before.
  func command(_ body: @escaping () -> Void, cancel: @escaping (VbdError) -> Void) {
    commands.add(VbdCommands.Command(begin: body, cancel: cancel))
    advanceCommands()
  }

  /// Begins the next command if it can.
  func advanceCommands() {
    while isConnectionStable, let next = commands.next() { next.begin() }
  }

  /// Ends the present command with an answer.
  func finish(_ answer: () -> Void) {
    commands.finish()
    answer()
    advanceCommands()
    // What a toolstack wrote of the medium meanwhile was left for now.
    if configuration?.canChangeMedium == true, !commands.isBusy { refresh() }
  }

  /// The disk goes: nothing that waits will be done.
  func cancelCommands() {
    let error = VbdError("\(identity) is gone, or the daemon stops; the command was not carried out")
    let (waiting, asked) = commands.takeAll()
    for then in asked { then(error) }
    for command in waiting { command.cancel(error) }
  }

  /// Has the queues do something and goes on with their answer; without queues at once.
  func ask(
    _ question: (BlockConnection, _ done: @escaping @Sendable (VbdError?) -> Void) -> Void,
    then: @escaping (VbdError?) -> Void
  ) {
    guard let connection else {
      then(nil)
      return
    }
    let number = commands.ask(then)
    let (identity, post) = (identity, environment.post)
    question(connection) { post(identity, .answered(question: number, failure: $0)) }
  }
}
