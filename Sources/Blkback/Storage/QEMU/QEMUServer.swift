import RingKit

/// QEMU's storage daemon, serving one image on a socket that it is given. Belongs to the thread that starts
/// it, with which it ends.
///
/// The storage daemon rather than qemu-nbd: it takes the listening socket as a descriptor, so that no name of
/// a socket is left over and a connection waits in the socket while the program is started again, and it is
/// told each layer's driver and options one by one, with nothing left to guess.
final class QEMUServer: NBDServerProcess {
  private let image: QEMUImage
  private let name: String
  private let socket: any ListeningSocket
  private var process: ChildProcess?
  private var words = LastWords()
  private(set) var mayPass = false

  /// Longest wait for an orderly end, in nanoseconds.
  static let endNanoseconds: UInt64 = 10_000_000_000

  init(image: QEMUImage, name: String, socket: any ListeningSocket) {
    self.image = image
    self.name = name
    self.socket = socket
  }

  /// Starts the program for an image and connects to it.
  static func openStore(
    driver: String, prefix: String, request: StoreRequest
  ) throws(VbdError) -> any BlockStore {
    let name = "\(prefix):\(request.location)"
    guard !request.isShared else {
      throw VbdError(
        "\(name): mode w! cannot be: two writers of one \(prefix) image destroy it; use a raw image or device"
      )
    }
    let image = try QEMUImage(driver: driver, name: name, request: request)
    let socket: PrivateSocket
    do throws(SystemError) {
      socket = try PrivateSocket(below: request.runDirectory)
    } catch {
      throw VbdError("\(name): \(error)")
    }
    return try NBDStore(
      address: .unix(path: socket.path, export: ""), name: name, request: request
    ) {
      QEMUServer(image: image, name: name, socket: socket)
    }
  }

  var descriptor: Int32? { process?.errorDescriptor }

  /// The running program's process ID, for tests and reports.
  var processID: Int32? { process?.processID }

  func start() throws(VbdError) {
    if process != nil { return }
    (words, mayPass) = (LastWords(), false)
    do throws(SystemError) {
      process = try ChildProcess(
        path: QEMUImage.wrapper, arguments: image.command(isPrivileged: ImageFacts.isPrivileged),
        environment: ["PATH=/usr/bin:/bin", "LC_ALL=C"], passing: [socket.descriptor])
    } catch {
      throw VbdError("\(name): \(error)")
    }
  }

  func listen() -> VbdError? {
    guard let process else { return nil }
    while let bytes = process.readErrors() {
      if !bytes.isEmpty {
        words.add(bytes)
        continue
      }
      // Nobody can speak any more: it is gone, or has closed what it has no business to close.
      let end = process.killAndReap()
      self.process = nil
      mayPass = words.text.contains("\" lock")
      let said = words.text.isEmpty ? "" : ": \(words.text)"
      // EBUSY: somebody else writes the image, as with our own locks.
      return VbdError(
        "\(name): QEMU's storage daemon: \(end?.description ?? "it is gone")\(said)",
        errno: mayPass ? 16 : nil)
    }
    return nil
  }

  /// Asks it to end in order, and does not wait for that.
  func askToEnd() { process?.ask(.end) }

  func stop() { _ = stop(untilNanoseconds: MonotonicClock.nowNanoseconds() + Self.endNanoseconds) }

  /// Ends it in order and waits for that until a moment of CLOCK_MONOTONIC; false when it took longer and was
  /// killed.
  func stop(untilNanoseconds end: UInt64) -> Bool {
    guard let process else { return true }
    process.ask(.end)
    var poll = DescriptorPoll()
    poll.set([(process.errorDescriptor, false)])
    while self.process != nil, MonotonicClock.nowNanoseconds() < end {
      _ = try? poll.wait(timeoutMilliseconds: 100)
      _ = listen()
    }
    guard self.process != nil else { return true }
    _ = process.killAndReap()
    self.process = nil
    return false
  }
}

/// The last lines that a program said, as far as they are worth repeating.
struct LastWords {
  /// Bytes kept.
  static let limit = 1000
  private var bytes: [UInt8] = []

  /// Adds what was said.
  mutating func add(_ more: [UInt8]) {
    bytes += more
    if bytes.count > Self.limit { bytes.removeFirst(bytes.count - Self.limit) }
  }

  /// The last three lines, with what cannot be printed replaced.
  var text: String {
    let printable = bytes.map { $0 == 10 || ($0 >= 32 && $0 < 127) ? $0 : UInt8(ascii: "?") }
    let lines = printable.split(separator: 10).suffix(3)
    return lines.map { String(decoding: $0, as: UTF8.self) }.joined(separator: "; ")
  }
}
