public import RingKit

/// A pair of rings with their event channels.
public final class NetFrontendQueue {
  /// The queue's number.
  public let number: Int
  /// Guest to backend.
  public let transmitter: NetTransmitter
  /// Backend to guest.
  public let receiver: NetReceiver
  /// Our end of the transmit ring's event channel.
  public let transmitPort: Port
  /// Our end of the receive ring's: the same one where it is not split.
  public let receivePort: Port

  init(
    number: Int, transmitter: NetTransmitter, receiver: NetReceiver, transmitPort: Port, receivePort: Port
  ) {
    self.number = number
    self.transmitter = transmitter
    self.receiver = receiver
    self.transmitPort = transmitPort
    self.receivePort = receivePort
  }

  /// True when the rings share their event channel.
  public var isJoint: Bool { transmitPort == receivePort }

  var keys: NetRingKeys.Queue {
    NetRingKeys.Queue(
      transmitReference: transmitter.ringPages.references[0],
      receiveReference: receiver.ringPages.references[0], transmitPort: transmitPort,
      receivePort: receivePort)
  }

  /// True when a response of either ring can be taken; when there are none, the next one brings an event.
  func requestEvents() throws(NetFrontendError) -> Bool {
    let received = try receiver.requestEvent()
    let transmitted = try transmitter.requestEvent()
    return received || transmitted
  }
}
