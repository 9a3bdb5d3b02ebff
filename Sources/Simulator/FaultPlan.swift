/// How often the simulated world fails, each in a thousand opportunities; all 0 at first.
public struct FaultPlan: Sendable, Equatable {
  /// Storage calls that fail with EIO.
  public var transferError = 0
  /// Reads and writes that move only part.
  public var shortTransfer = 0
  /// Reads and writes that move nothing, as at the end of a truncated image.
  public var endOfMedium = 0
  /// Storage calls that end with EINTR or EAGAIN.
  public var interruption = 0
  /// Flushes that fail with EIO and lose what they should have kept.
  public var flushError = 0
  /// Grant copies that fail, each segment by itself.
  public var copyFailure = 0
  /// Grants that cannot be mapped.
  public var pinFailure = 0
  /// Buffers refused because a neighbour holds the pool.
  public var allocationFailure = 0

  /// A world without faults.
  public init() {}

  /// Everything fails now and then.
  public static var everything: FaultPlan {
    var plan = FaultPlan()
    plan.transferError = 15
    plan.shortTransfer = 120
    plan.endOfMedium = 5
    plan.interruption = 60
    plan.copyFailure = 10
    plan.pinFailure = 60
    plan.allocationFailure = 100
    return plan
  }
}
