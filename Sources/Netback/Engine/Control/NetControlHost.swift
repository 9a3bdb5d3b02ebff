public import RingKit

/// The world as the control ring of an interface sees it.
///
/// The ring's thread need not be that of any queue. A queue's ``GrantStaging`` belongs to the queue's thread, so
/// changes travel there as messages; those of one queue arrive in the order in which they were sent.
public protocol NetControlHost: ~Copyable {
  /// Does the grant copies, all in one direction, and sets each one's status.
  mutating func copy(_ batch: inout GrantCopyBatch)
  /// Maps one page of the frontend; nil when it cannot be mapped that way (XSA-367: never taken for granted).
  mutating func map(_ reference: GrantReference, access: GrantAccess) -> MappedPages?
  /// Has a queue add pages to its table. There is room for them. Until that is done the queue copies, which
  /// is right as well.
  mutating func stage(_ pages: [StagedPage], onQueue queue: Int)
  /// Has a queue remove pages from its table. When it has, or is gone, the host calls
  /// ``NetControlEngine/unstaged(token:)`` with `token` and runs the engine; never from within this call.
  mutating func unstage(_ references: [GrantReference], onQueue queue: Int, token: UInt32)
  /// Hands the queues what is set about hashes from now on; before the frontend is told that it is.
  mutating func setHash(_ state: NetHashState)
  /// Signals the frontend.
  mutating func notifyControl()
}
