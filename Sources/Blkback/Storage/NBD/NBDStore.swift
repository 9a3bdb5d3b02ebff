public import RingKit
import Synchronization

/// A disk behind a server of network block devices (the NBD protocol, through libnbd): on another machine, or
/// a process of this one that knows an image's format.
///
/// A connection that is lost is made again for as long as the disk is there, and what was under way is done
/// again: the guest sees latency. Writes that the server had completed but not flushed are written again
/// first (``ReplayJournal``).
///
/// A disk that is written has one connection: the journal has to know the order of all writes.
public final class NBDStore: BlockStore {
  /// Bytes of unflushed writes that are kept for a disk.
  static let journalByteCount = 64 << 20
  /// Unflushed writes and discards that are kept.
  static let journalEntryCount = 16384
  /// Longest wait of the control thread for a server, in milliseconds.
  static let openMilliseconds: Int32 = 6000

  private struct State {
    var byteCount: UInt64
    /// A connection that nobody uses now.
    var spare: (handle: NBDHandle, export: NBDExport)?
    /// Nil while a channel has it, and for what is not written.
    var journal: ReplayJournal?
    var isJournalOut = false
    /// When the size was asked for.
    var askedAt: UInt64
  }

  private let state: Mutex<State>
  /// What the server said first.
  let export: NBDExport
  let name: String
  let connector: NBDConnector
  private let teller = NBDTeller()
  /// Losses of data, which no later flush may hide.
  let health: DiskHealth
  /// True while a channel waits for a connection.
  let isAway = Atomic(false)
  /// How long a queue that closes waits for a server that is away, in nanoseconds.
  let closingNanoseconds: UInt64
  private let mayAskAgain: Bool
  private let isWritten: Bool
  /// What becomes of ranges that the guest gives back.
  let discardMode: DiscardMode
  /// True when each write is durable by itself: where nothing else makes it so, and where there are other
  /// writers, whose newer data a journal would write over.
  let writesDurably: Bool
  public let warning: String?

  /// Connects to `address`, waiting a few seconds at most. `name` is what the disk is called in messages;
  /// `server` makes the process that serves it, where there is one to be started.
  init(
    address: NBDAddress, name: String, request: StoreRequest, journalByteCount: Int = journalByteCount,
    closingNanoseconds: UInt64 = 30_000_000_000,
    server: (@Sendable () -> any NBDServerProcess)? = nil
  ) throws(VbdError) {
    self.name = name
    self.closingNanoseconds = closingNanoseconds
    let teller = teller
    health = DiskHealth { errno in
      teller.tell(
        .failure,
        "\(name): what the server had taken is lost (error \(errno)); writes and flushes fail from here")
    }
    connector = try NBDConnector(address: address, name: name, report: { teller.tell($0, $1) }) { server?() }
    do throws(VbdError) {
      let (handle, export) = try Self.ask(connector, name: name, milliseconds: Self.openMilliseconds)
      try Self.check(export, name: name, isReadOnly: request.isReadOnly)
      connector.expect(byteCount: export.byteCount)
      self.export = export
      discardMode = request.discardMode
      guard request.isReadOnly || discardMode != .zeroes || export.canZero else {
        throw VbdError(
          "\(name): the server cannot make ranges read as zeros; leave discard-mode as it is usually (unmap)")
      }
      isWritten = !request.isReadOnly
      writesDurably = export.canForceUnitAccess && (!export.canFlush || request.isShared)
      mayAskAgain = server == nil && export.canMultiConnect
      var journal: ReplayJournal?
      if isWritten && export.canFlush && !request.isShared {
        do throws(SystemError) {
          journal = try ReplayJournal(byteCount: journalByteCount, entryCapacity: Self.journalEntryCount)
        } catch {
          throw VbdError("\(name): memory for the journal of writes: \(error)")
        }
      }
      state = Mutex(
        State(
          byteCount: export.byteCount, spare: (handle, export), journal: journal,
          askedAt: 0))
      warning = Self.warning(export, name: name, request)
    } catch {
      connector.stop()
      throw error
    }
  }

  deinit { connector.stop() }

  public func close(done: @escaping @Sendable () -> Void) { connector.stop(done: done) }

  /// One attempt for a connection, with a bound.
  private static func ask(
    _ connector: NBDConnector, name: String, milliseconds: Int32
  ) throws(VbdError) -> (NBDHandle, NBDExport) {
    let reply: Mailbox<NBDNews>
    do throws(SystemError) {
      reply = try Mailbox<NBDNews>()
    } catch {
      throw VbdError("\(name): \(error)")
    }
    let now = MonotonicClock.nowNanoseconds()
    connector.connect(reply, patience: .once(untilNanoseconds: now + 1_000_000_000))
    let end = now + UInt64(milliseconds) * 1_000_000
    var poll = DescriptorPoll()
    poll.set([(reply.descriptor, false)])
    while true {
      for news in reply.take() {
        switch news {
        case .connected(let handle, let export): return (handle, export)
        case .failed(let error), .unusable(let error): throw error
        case .nothing: break
        }
      }
      let now = MonotonicClock.nowNanoseconds()
      guard now < end else { break }
      _ = try? poll.wait(timeoutMilliseconds: Int32((end - now) / 1_000_000 + 1))
    }
    connector.withdraw(reply)
    throw VbdError("\(name): no answer within \(milliseconds) ms; is the server there and listening?")
  }

  /// Refuses an export that cannot be a disk.
  private static func check(_ export: NBDExport, name: String, isReadOnly: Bool) throws(VbdError) {
    let block = max(512, export.minimumBlockByteCount)
    guard export.byteCount > 0 else { throw VbdError("\(name): the export is empty") }
    guard block <= 65536, block.nonzeroBitCount == 1 else {
      throw VbdError(
        "\(name): the server wants blocks of \(block) bytes; powers of two up to 65536 can be served")
    }
    guard export.byteCount % UInt64(block) == 0 else {
      throw VbdError(
        "\(name): the export's size, \(export.byteCount) bytes, is not a multiple of \(block); extend the image"
      )
    }
    guard isReadOnly || !export.isReadOnly else {
      throw VbdError("\(name): the server exports it read-only; attach it read-only too (mode r)")
    }
  }

  /// What a flush can promise there.
  private static func warning(_ export: NBDExport, name: String, _ request: StoreRequest) -> String? {
    if request.isReadOnly { return nil }
    if request.isShared {
      return export.canForceUnitAccess
        ? "\(name): shared with other writers (mode w!), so each write is made durable by itself, which is slow"
        : "\(name): shared with other writers (mode w!), and the server knows no durable writes: if it is killed,"
          + " writes that were completed and not yet flushed may be lost without an error"
    }
    if export.canFlush { return nil }
    return export.canForceUnitAccess
      ? "\(name): the server has no flush; each write is made durable by itself, which is slow"
      : "\(name): the server knows neither flush nor durable writes; what was written is as safe as the server"
        + " keeps completed writes, and a guest's flush can promise no more"
  }

  public var byteCount: UInt64 { state.withLock { $0.byteCount } }

  /// One piece of memory a transfer; any address will do.
  public var geometry: MediumGeometry {
    MediumGeometry(
      blockByteCount: max(512, export.minimumBlockByteCount), memoryAlignment: 1, takesVectors: false)
  }

  public var physicalBlockByteCount: Int {
    let block = max(512, export.minimumBlockByteCount)
    var best = block
    while best < min(4096, export.preferredBlockByteCount), export.byteCount % UInt64(best * 2) == 0 {
      best *= 2
    }
    return best
  }

  public var discard: DiscardSupport? {
    let isPossible = discardMode == .zeroes ? export.canZero : export.canTrim
    guard isWritten && isPossible && discardMode != .off else { return nil }
    return DiscardSupport(
      unitByteCount: max(512, export.minimumBlockByteCount),
      chunkByteCount: discardMode == .zeroes ? 16 << 20 : 64 << 20)
  }

  /// Only what is never written, on a server that says that connections agree, takes more than one queue.
  public var maximumQueueCount: Int { !isWritten && export.canMultiConnect ? .max : 1 }

  /// Asks on a second connection, where the server lets us and serves by itself (QEMU tells the size only once
  /// for as long as it runs), and not more often than every ten seconds.
  public func refreshByteCount() throws(VbdError) -> UInt64 {
    let isDue = state.withLock { state in
      let time = MonotonicClock.nowNanoseconds()
      guard mayAskAgain, !isAway.load(ordering: .relaxed), time >= state.askedAt + 10_000_000_000 else {
        return false
      }
      state.askedAt = time
      return true
    }
    guard isDue else { return byteCount }
    let (_, now) = try Self.ask(connector, name: name, milliseconds: 1000)
    let block = UInt64(geometry.blockByteCount)
    let size = now.byteCount / block * block
    return try state.withLock { (state) throws(VbdError) in
      guard size >= state.byteCount else {
        throw VbdError("\(name): the export shrank to \(size) bytes; the disk keeps its \(state.byteCount)")
      }
      if size > state.byteCount {
        state.byteCount = size
        connector.expect(byteCount: now.byteCount)
      }
      return size
    }
  }

  public func tell(_ listener: @escaping @Sendable (DeviceSeverity, String) -> Void) { teller.set(listener) }

  public func openChannel(_ place: StoreChannelPlace) throws(VbdError) -> any StoreChannel {
    let (spare, journal) = try state.withLock { (state) throws(VbdError) in
      if isWritten && state.isJournalOut {
        throw VbdError("\(name): another queue still uses the disk, which takes one that writes")
      }
      state.isJournalOut = isWritten
      defer { (state.spare, state.journal) = (nil, nil) }
      return (state.spare, state.journal)
    }
    do throws(SystemError) {
      return NBDChannel(
        store: self, place: place, news: try Mailbox(), spare: spare, journal: journal)
    } catch {
      putBack(spare: spare, journal: journal)
      throw VbdError("\(name): \(error)")
    }
  }

  /// Takes back what a channel had.
  func putBack(spare: (handle: NBDHandle, export: NBDExport)?, journal: ReplayJournal?) {
    state.withLock { state in
      state.spare = spare ?? state.spare
      guard isWritten else { return }
      state.journal = journal
      state.isJournalOut = false
    }
  }
}

/// Passes on what happens to a store, once somebody listens.
final class NBDTeller: Sendable {
  private let listener = Mutex<(@Sendable (DeviceSeverity, String) -> Void)?>(nil)

  func set(_ listener: @escaping @Sendable (DeviceSeverity, String) -> Void) {
    self.listener.withLock { $0 = listener }
  }

  func tell(_ severity: DeviceSeverity, _ message: String) { listener.withLock { $0 }?(severity, message) }
}

extension StoreKind {
  /// Servers of network block devices.
  static let nbd = StoreKind(
    prefixes: ["nbd"], locationForm: "unix:/PATH | nbd:HOST:PORT | nbd://HOST/EXPORT",
    check: { nbdTrouble($0) }, canZero: true,
    open: { (request) throws(VbdError) in try openNBD(request.location, request) })

  /// The same by URI, encrypted or through a unix socket.
  static let nbdURIs = ["nbds", "nbd+unix", "nbds+unix"].map { scheme in
    StoreKind(
      prefixes: [scheme], locationForm: scheme == "nbds" ? "//HOST/EXPORT" : "///EXPORT?socket=/PATH",
      check: { $0.hasPrefix("//") ? nbdTrouble("\(scheme):\($0)") : "a URI begins with \(scheme)://" },
      canZero: true,
      open: { (request) throws(VbdError) in try openNBD("\(scheme):\(request.location)", request) })
  }

  @Sendable private static func nbdTrouble(_ text: String) -> String? {
    do throws(NBDError) {
      _ = try NBDAddress(text)
      return nil
    } catch {
      return error.description
    }
  }

  private static func openNBD(_ text: String, _ request: StoreRequest) throws(VbdError) -> any BlockStore {
    do throws(NBDError) {
      let address = try NBDAddress(text)
      do throws(VbdError) {
        return try NBDStore(address: address, name: "NBD server \(address)", request: request)
      } catch {
        throw NBDError(error.description)
      }
    } catch {
      throw VbdError(error.description)
    }
  }
}
