public import RingKit

/// A program that serves an image over NBD on a listening socket, to whoever connects there: read, write,
/// flush, trim and write zeroes, under the default export's name. It runs as the image's owner without any
/// privilege, takes QEMU's locks on the image, and ends with the thread that starts it. Belongs to that thread.
///
/// QEMU's storage daemon does it, as for images that rings use (``StoreTable``). It is not this process that
/// speaks NBD: it would parse what others send in the process that has the guests' pages mapped.
public final class ImageServer {
  private let server: QEMUServer

  /// Longest wait for an orderly end, in nanoseconds.
  public static var endNanoseconds: UInt64 { QEMUServer.endNanoseconds }

  /// Checks an image, named as in `params`; nothing is started.
  public init(
    image parameters: String, isReadOnly: Bool, direct: DirectPolicy = .preferred,
    socket: any ListeningSocket
  ) throws(VbdError) {
    let (kind, location) = try StoreTable.parse(parameters)
    let formatted = QEMUImage.drivers.first { kind.prefixes.contains($0.prefix) }?.driver
    let raw = kind.prefixes == StoreKind.file.prefixes ? "raw" : nil
    guard let driver = formatted ?? raw else {
      throw VbdError("\(parameters) cannot be lent; only files and block devices can")
    }
    let request = StoreRequest(location: location, isReadOnly: isReadOnly, direct: direct)
    server = QEMUServer(
      image: try QEMUImage(driver: driver, name: parameters, request: request), name: parameters,
      socket: socket)
  }

  /// Starts the program. Connections wait in the socket until it serves.
  public func start() throws(VbdError) { try server.start() }

  /// Readable when the program has something to say, or ended; nil while it does not run.
  public var descriptor: Int32? { server.descriptor }

  /// Takes what it says. Gives how it ended in words, once; nil while it runs.
  public func listen() -> VbdError? { server.listen() }

  /// True when it ended for a reason that may be gone soon, such as another's lock.
  public var mayPass: Bool { server.mayPass }

  /// The running program's process ID, for tests and reports.
  public var processID: Int32? { server.processID }

  /// Asks it to bring everything to stable storage and end, and does not wait for that.
  public func askToEnd() { server.askToEnd() }

  /// The same, and waits until a moment of CLOCK_MONOTONIC, in nanoseconds; then it is killed. False when it
  /// had to be.
  @discardableResult
  public func stop(untilNanoseconds end: UInt64) -> Bool { server.stop(untilNanoseconds: end) }
}
