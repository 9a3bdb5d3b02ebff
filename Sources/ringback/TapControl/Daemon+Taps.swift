import Blkback
import Foundation
import Logging
import RingKit

/// What the daemon keeps for the taps.
struct DaemonTaps {
  var table = TapTable()
  let file: TapFile
  /// Where sockets of taps are.
  let directory: String
  /// Images that are open for a tap because no guest's disk has them: what keeps other writers out.
  var holds: [Int: any BlockStore] = [:]
  /// Who lends images out, if anybody does.
  var door: (any TapDoor)?

  init(file: TapFile, directory: String) {
    self.file = file
    self.directory = directory
  }

  /// The open taps, paused or not, of an image.
  func taps(of image: String) -> [Tap] {
    guard let wanted = ImageIdentity(image) else { return [] }
    return table.taps.filter { $0.image.flatMap { ImageIdentity($0.name) } == wanted }
  }

  /// Changes the table in the file and here, or in neither.
  mutating func change<Result>(
    _ body: (inout TapTable) throws(TapError) -> Result
  ) throws(TapError) -> Result {
    var changed = table
    let result = try body(&changed)
    if changed != table {
      try file.write(changed)
      table = changed
    }
    return result
  }

  /// Where a tap's image can be had over NBD (libxl_disk.c makes QEMU's option of it).
  func socketPath(minor: Int, process: Int32) -> String { "\(directory)/nbd\(process).\(minor)" }
}

/// The taps: what `tap-ctl` asks for.
extension Daemon {
  static var process: Int32 { ProcessInfo.processInfo.processIdentifier }

  /// Answers now, or when it is done.
  func answer(_ question: TapQuestion, to ticket: ControlTicket) {
    carryOut(question) { [weak self] result in
      let text =
        switch result {
        case .success(let reply): ControlReply.value(reply)
        case .failure(let error):
          ControlReply.value(ControlFailure(error.description, errno: error.errno))
        }
      self?.socket.answer(ticket, with: text)
    }
  }

  /// Does what is asked; `done` is called once, on the control thread.
  private func carryOut(_ question: TapQuestion, done: @escaping (Result<TapReply, TapError>) -> Void) {
    var reply = TapReply(process: Self.process)
    do throws(TapError) {
      guard !isStopping else { throw TapError(EAGAIN, "the daemon stops; ask the next one") }
      switch question.verb {
      case .list: reply.taps = taps.table.taps
      case .spawn: break
      case .allocate:
        reply.minor = try taps.change { (table) throws(TapError) in try table.allocate() }
      case .free:
        let minor = try question.namedMinor
        try taps.change { (table) throws(TapError) in try table.free(minor) }
      case .attach:
        let minor = try question.namedMinor
        try taps.change { (table) throws(TapError) in try table.attach(minor, process: Self.process) }
      case .detach:
        let minor = try question.namedMinor
        try taps.change { (table) throws(TapError) in try table.detach(minor) }
      case .open: try openTap(question, minor: try question.namedMinor)
      case .create: reply.minor = try createTap(question)
      case .close: try closeTap(try question.namedMinor, force: question.force ?? false)
      case .destroy:
        let minor = try question.namedMinor
        try closeTap(minor, force: question.force ?? false)
        try taps.change { (table) throws(TapError) in
          try table.detach(minor)
          try table.free(minor)
        }
      case .pause, .unpause, .stats, .info:
        throw TapError(EOPNOTSUPP, "\(question.verb.rawValue) cannot be done yet")
      }
      done(.success(reply))
    } catch {
      done(.failure(error))
    }
  }

  // MARK: Opening and closing

  private func createTap(_ question: TapQuestion) throws(TapError) -> Int {
    let minor = try taps.change { (table) throws(TapError) in
      let minor = try table.allocate()
      try table.attach(minor, process: Self.process)
      return minor
    }
    do throws(TapError) {
      try openTap(question, minor: minor)
    } catch {
      try? taps.change { (table) throws(TapError) in
        try table.detach(minor)
        try table.free(minor)
      }
      throw error
    }
    return minor
  }

  private func openTap(_ question: TapQuestion, minor: Int) throws(TapError) {
    let process = try taps.table.checkOpen(minor)
    var image = TapImage(name: try checkedName(question.image))
    image.isReadOnly = question.isReadOnly ?? false
    image.isDirect = question.isDirect ?? true
    if let other = taps.taps(of: image.name).first(where: { $0.image?.isReadOnly != true || !image.isReadOnly })
    {
      throw TapError(EBUSY, "\(image.name) is open as minor \(other.minor); two writers would destroy it")
    }
    if let disk = holders(of: image.name).first {
      // In xl's order the disk of a guest has opened it already.
      image.sectorCount = disk.properties?.sectorCount ?? 0
    } else {
      let store = try openImage(image)
      image.sectorCount = store.byteCount / 512
      taps.holds[minor] = store
    }
    do throws(TapError) {
      try taps.change { [image] (table) throws(TapError) in try table.open(minor, image) }
      try taps.door?.open(
        minor: minor, image: image, path: taps.socketPath(minor: minor, process: process))
    } catch {
      dropHold(minor)
      try? taps.change { (table) throws(TapError) in try table.close(minor) }
      throw error
    }
  }

  private func closeTap(_ minor: Int, force: Bool) throws(TapError) {
    try taps.change { (table) throws(TapError) in try table.close(minor) }
    taps.door?.close(minor: minor)
    dropHold(minor)
  }

  /// The name of an image, if it is one.
  private func checkedName(_ name: String?) throws(TapError) -> String {
    guard let name, !name.isEmpty else { throw TapError(EINVAL, "an image is needed, as in aio:/PATH") }
    do throws(VbdError) {
      _ = try StoreTable.parse(name)
    } catch {
      throw TapError(EINVAL, error.description)
    }
    return name
  }

  /// Opens an image for a tap alone.
  private func openImage(_ image: TapImage) throws(TapError) -> any BlockStore {
    do throws(VbdError) {
      let (kind, location) = try StoreTable.parse(image.name)
      return try kind.open(
        StoreRequest(
          location: location, isReadOnly: image.isReadOnly, direct: image.isDirect ? .preferred : .never))
    } catch {
      throw TapError(error.errno ?? EINVAL, error.description)
    }
  }

  // MARK: Guests' disks

  /// The guests' disks that have an image open.
  func holders(of image: String) -> [Vbd] {
    guard let wanted = ImageIdentity(image) else { return [] }
    return disks.values.filter {
      $0.hasImage && $0.configuration.flatMap { ImageIdentity($0.image) } == wanted
    }
  }

  /// Lets go of a tap's image.
  func dropHold(_ minor: Int) {
    guard let hold = taps.holds.removeValue(forKey: minor) else { return }
    hold.close {}
  }

  /// Opens a guest's image, of which its taps have let go before.
  func openStore(_ configuration: VbdConfiguration) throws(VbdError) -> any BlockStore {
    for tap in taps.taps(of: configuration.image) {
      taps.door?.takeBack(minor: tap.minor)
      dropHold(tap.minor)
    }
    return try configuration.openStore()
  }
}

extension TapQuestion {
  /// The minor, which has to be there.
  fileprivate var namedMinor: Int {
    get throws(TapError) {
      guard let minor else { throw TapError(EINVAL, "\"\(verb.rawValue)\" needs \"minor\"") }
      return minor
    }
  }
}

extension DaemonConfiguration {
  /// Beside the control socket, which no two daemons share.
  var tapFile: TapFile {
    let socket = URL(filePath: controlSocketPath)
    let directory = socket.deletingLastPathComponent().path
    let name = socket.lastPathComponent
    return TapFile(path: "\(directory)/" + (name == "control" ? "taps.json" : "\(name).taps.json"))
  }
}

extension Daemon {
  /// Takes up the taps of an earlier daemon.
  func restoreTaps() {
    let (table, warning) = taps.file.read()
    if let warning { logger.error("\(warning)") }
    taps.table = table
  }
}
