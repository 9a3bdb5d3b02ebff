import Blkback
import RingKit

/// An image that may be lent, as its tap has it.
struct LentImage: Equatable {
  /// As in `params`: "aio:/PATH".
  var name: String
  var isReadOnly = false
  /// False when the host's page cache is to be used.
  var isDirect = true
}

/// Who holds the images that are lent: the daemon. Everything happens on the control thread.
protocol LendingOwner: AnyObject {
  /// Has all of ours who hold a tap's image let go of it. `done` is called once: with nil when it is free, or
  /// with the reason that it cannot be had, and then nothing has changed.
  func letGo(ofTap minor: Int, done: @escaping (VbdError?) -> Void)
  /// Nobody outside uses the tap's image any longer: those of ours who let go of it may have it back.
  func lendingEnded(ofTap minor: Int)
  /// Tells the administrator.
  func log(_ severity: DeviceSeverity, _ message: String, aboutTap minor: Int)
}

/// One tap's socket, and the program that serves its image there while somebody outside wants it.
///
/// The program runs from the first connection until all have gone, or until the image is taken back. Meanwhile
/// it accepts connections by itself, on the same socket. A connection that comes while a ring uses the image is
/// closed: the two would each keep a cache of what the other changes.
final class LendingDoor {
  private enum Phase {
    /// Nobody is there.
    case listening
    /// Somebody is there, and those who hold the image are asked to let go. The number tells this question from
    /// one that was given up.
    case asking(UInt32)
    /// The image is served. `isIdle` when there was no connection at the last look.
    case serving(ImageServer, isIdle: Bool)
    /// All have gone, and the program was asked to end.
    case ending(ImageServer)
    /// It could not be started, for a reason that may pass.
    case waiting(ImageServer)
  }

  /// How often is looked whether connections are there, in nanoseconds. A program that has none twice in
  /// succession ends: tools often come back at once.
  static let lookNanoseconds: UInt64 = 1_000_000_000
  /// How long another's lock is waited for, and the time between two attempts.
  static let patienceNanoseconds: UInt64 = 2_000_000_000
  static let attemptNanoseconds: UInt64 = 100_000_000

  let minor: Int
  private(set) var image: LentImage
  private let socket: LendableSocket
  private weak var owner: (any LendingOwner)?
  private var phase = Phase.listening
  private var lastQuestion: UInt32 = 0
  private var patienceEnds: UInt64 = 0
  /// When it is to be looked at without being asked.
  private(set) var dueNanoseconds: UInt64?
  private var toldRefusal: String?
  /// Why the image could not be served to the last who came; nil when it could.
  private(set) var failure: VbdError?

  init(minor: Int, image: LentImage, path: String, owner: any LendingOwner) throws(SystemError) {
    (self.minor, self.image, self.owner) = (minor, image, owner)
    socket = try LendableSocket(path: path)
  }

  /// The program's process ID while it runs.
  var processID: Int32? { server?.processID }

  /// True while the image is with somebody outside, or about to be.
  var isLent: Bool { if case .listening = phase { false } else { true } }

  private var server: ImageServer? {
    switch phase {
    case .listening, .asking: nil
    case .serving(let server, _), .ending(let server), .waiting(let server): server
    }
  }

  /// What the control thread waits for.
  var descriptors: [(descriptor: Int32, writable: Bool)] {
    switch phase {
    case .listening: [(socket.descriptor, false)]
    case .asking, .waiting: []
    case .serving(let server, _), .ending(let server): server.descriptor.map { [($0, false)] } ?? []
    }
  }

  /// The tap goes on, perhaps with another image.
  func change(to image: LentImage) {
    if image != self.image { takeBack() }
    (self.image, toldRefusal, failure) = (image, nil, nil)
  }

  // MARK: Events

  /// One of ``descriptors`` is ready.
  func serve() {
    switch phase {
    case .listening:
      lastQuestion &+= 1
      let question = lastQuestion
      phase = .asking(question)
      owner?.letGo(ofTap: minor) { [weak self] in self?.answer(question, $0) }
    case .serving(let server, _):
      if let end = server.listen() { ended(server, end) }
    case .ending(let server):
      if server.listen() != nil { becomeFree() }
    case .asking, .waiting: break
    }
  }

  /// Time has come.
  func look(atNanoseconds now: UInt64) {
    guard let dueNanoseconds, dueNanoseconds <= now else { return }
    switch phase {
    case .serving(let server, let wasIdle): lookForConnections(server, wasIdle: wasIdle, now)
    case .waiting(let server): start(server)
    case .ending(let server):
      owner?.log(.warning, "\(image.name): the NBD server does not end; it is killed", aboutTap: minor)
      server.stop(untilNanoseconds: now)
      becomeFree()
    case .listening, .asking: self.dueNanoseconds = nil
    }
  }

  private func lookForConnections(_ server: ImageServer, wasIdle: Bool, _ now: UInt64) {
    var count = 0
    do throws(SystemError) {
      count = try socket.connectionCount()
    } catch {
      owner?.log(.warning, "\(image.name) comes back although it may be in use: \(error)", aboutTap: minor)
    }
    if count == 0 && wasIdle {
      server.askToEnd()
      phase = .ending(server)
      dueNanoseconds = now + ImageServer.endNanoseconds
    } else {
      if count > 0 { failure = nil }
      phase = .serving(server, isIdle: count == 0)
      dueNanoseconds = now + Self.lookNanoseconds
    }
  }

  private func answer(_ question: UInt32, _ refusal: VbdError?) {
    guard case .asking(question) = phase else { return }
    if let refusal {
      phase = .listening
      refuse(refusal)
      return
    }
    do throws(VbdError) {
      let server = try ImageServer(
        image: image.name, isReadOnly: image.isReadOnly, direct: image.isDirect ? .preferred : .never,
        socket: socket)
      patienceEnds = MonotonicClock.nowNanoseconds() + Self.patienceNanoseconds
      start(server)
    } catch {
      fail(error)
    }
  }

  /// A connection that cannot be had is closed; the reason is told once.
  private func refuse(_ reason: VbdError) {
    let count = socket.refuseWaiting()
    guard count > 0, toldRefusal != reason.description else { return }
    toldRefusal = reason.description
    owner?.log(
      .warning, "\(image.name): an NBD client was turned away: \(reason); others are without further word",
      aboutTap: minor)
  }

  private func start(_ server: ImageServer) {
    do throws(VbdError) {
      try server.start()
      phase = .serving(server, isIdle: false)
      dueNanoseconds = MonotonicClock.nowNanoseconds() + Self.lookNanoseconds
      if failure == nil {
        owner?.log(.information, "\(image.name) is served over NBD at \(socket.path)", aboutTap: minor)
      }
    } catch {
      fail(error)
    }
  }

  /// The program ended unasked.
  private func ended(_ server: ImageServer, _ end: VbdError) {
    let now = MonotonicClock.nowNanoseconds()
    if server.mayPass, now < patienceEnds {
      phase = .waiting(server)
      dueNanoseconds = now + Self.attemptNanoseconds
    } else {
      fail(end)
    }
  }

  /// Nobody is left hanging: those who wait are turned away, and the next one begins anew.
  private func fail(_ error: VbdError) {
    failure = error
    _ = socket.refuseWaiting()
    owner?.log(.failure, "\(image.name) is not served over NBD: \(error)", aboutTap: minor)
    becomeFree()
  }

  private func becomeFree() {
    phase = .listening
    dueNanoseconds = nil
    toldRefusal = nil
    owner?.lendingEnded(ofTap: minor)
  }

  // MARK: Taking back

  /// Asks the program to end, so that several end at once; ``takeBack()`` waits for it.
  func askBack() { server?.askToEnd() }

  /// Has the program bring everything to stable storage and end, and waits for that, until a moment of
  /// CLOCK_MONOTONIC or for ``ImageServer/endNanoseconds``; its clients' connections end. Whoever calls this
  /// has a use for the image, so that nobody is told that it is free.
  func takeBack(untilNanoseconds end: UInt64? = nil) {
    defer {
      phase = .listening
      dueNanoseconds = nil
    }
    guard let server else { return }
    let hadClients = (try? socket.connectionCount()).map { $0 > 0 } ?? true
    let wasInOrder = server.stop(
      untilNanoseconds: end ?? MonotonicClock.nowNanoseconds() + ImageServer.endNanoseconds)
    if !wasInOrder {
      owner?.log(
        .failure,
        "\(image.name): the NBD server did not end in time and was killed; what its clients had not flushed may"
          + " be lost", aboutTap: minor)
    } else if hadClients {
      owner?.log(
        .warning, "\(image.name) was taken back from an NBD client, whose connection has ended",
        aboutTap: minor)
    }
  }
}
