import Blkback
import Foundation
import Logging
import RingKit

/// How a command about a tap ends: once, on the control thread.
typealias TapAnswer = (Result<TapReply, TapError>) -> Void

/// The taps: what `tap-ctl` asks for.
extension Daemon {
  static var process: Int32 { ProcessInfo.processInfo.processIdentifier }

  /// Answers now, or when it is done.
  func answer(_ question: TapQuestion, to ticket: ControlTicket) {
    let verb = question.verb.rawValue
    let about = question.minor.map { " of minor \($0)" } ?? ""
    let answer: TapAnswer = { [weak self] result in
      switch result {
      case .success(let reply):
        self?.socket.answer(ticket, with: ControlReply.value(reply))
      case .failure(let error):
        self?.logger.warning("tap-ctl \(verb)\(about): \(error)")
        self?.socket.answer(
          ticket, with: ControlReply.value(ControlFailure(error.description, errno: error.errno)))
      }
    }
    do throws(TapError) {
      try question.check()
      guard !isStopping else { throw TapError(EAGAIN, "the daemon stops; ask the next one") }
      if let reply = try carryOut(question, later: answer) { answer(.success(reply)) }
    } catch {
      answer(.failure(error))
    }
  }

  /// Does what is asked. Without a result, `later` is called when it is done.
  private func carryOut(
    _ question: TapQuestion, later: @escaping TapAnswer
  ) throws(TapError) -> TapReply? {
    var reply = TapReply(process: Self.process)
    switch question.verb {
    case .list:
      // A script that finds a tap of its image opens none, so that it is told here. Where others keep the image from
      // the disk it is told nothing: it looks itself who they are.
      if let image = question.image, !taps.taps(of: image).isEmpty,
        caller(question)?.trouble?.errno != EBUSY
      {
        try refuseInVain(question)
      }
      reply.taps = taps.table.taps
    case .spawn: break
    case .allocate: reply.minor = try taps.change { (table) throws(TapError) in try table.allocate() }
    case .free:
      let minor = try question.namedMinor
      try taps.change { (table) throws(TapError) in try table.free(minor) }
    case .attach:
      let minor = try question.namedMinor
      // The asker makes the socket's name of the process that it was told, be it an earlier daemon.
      let process = question.process ?? Self.process
      try taps.change { (table) throws(TapError) in try table.attach(minor, process: process) }
    case .detach:
      let minor = try question.namedMinor
      try taps.change { (table) throws(TapError) in try table.detach(minor) }
    case .open: try openTap(question, minor: try question.namedMinor)
    case .create: reply.minor = try createTap(question)
    case .close:
      try closeTap(try question.namedMinor, question) { later($0.map { reply }) }
      return nil
    case .destroy:
      let minor = try question.namedMinor
      try closeTap(minor, question) { [weak self] result in
        later((self?.afterClosing(result, minor) ?? result).map { reply })
      }
      return nil
    case .pause:
      try pauseTap(try question.namedMinor, question.timeoutSeconds) { later($0.map { reply }) }
      return nil
    case .unpause:
      try unpauseTap(try question.namedMinor, question.image) { later($0.map { reply }) }
      return nil
    case .stats: reply.stats = try statistics(of: try question.namedMinor)
    case .info: reply.info = try information(of: try question.namedMinor)
    }
    return reply
  }

  // MARK: Opening

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
    try refuseInVain(question)
    let others = taps.taps(of: image.name)
    if let other = others.first(where: { $0.image?.isReadOnly != true || !image.isReadOnly }) {
      throw TapError(
        EBUSY, "\(image.name) is open as minor \(other.minor) already; use that one, or close it first")
    }
    try claim(&image, minor: minor)
    image.isForDisks = !users(of: image.name).isEmpty
    do throws(TapError) {
      try taps.change { [image] (table) throws(TapError) in try table.open(minor, image) }
    } catch {
      dropHold(minor)
      throw error
    }
    do throws(TapError) {
      try openDoor(minor: minor, image, process: process)
    } catch {
      dropHold(minor)
      try? taps.change { (table) throws(TapError) in try table.takeBackOpen(minor) }
      throw error
    }
    logger.info("tap \(minor) opened \(image.name)")
  }

  /// Has the hotplug script of a disk fail that cannot be served: otherwise xl succeeds, and the disk ends in Closed.
  /// Only the disk that the script is for counts. Several may wait with the same image, and those that can be
  /// served are not to suffer for the others.
  private func refuseInVain(_ question: TapQuestion) throws(TapError) {
    guard let disk = caller(question), let trouble = disk.troubleOfScript() else { return }
    throw TapError(trouble.errno ?? EINVAL, "\(disk.words) cannot be served: \(trouble)")
  }

  /// The disk whose hotplug script asks, if it is one of ours.
  private func caller(_ question: TapQuestion) -> Vbd? {
    guard let device = question.device else { return nil }
    return disks.first { $0.key.description == device }?.value
  }

  /// Sees that a tap's image is good, and keeps other writers out of it. In xl's order a guest's disk has opened it
  /// already.
  func claim(_ image: inout TapImage, minor: Int) throws(TapError) {
    let disks = users(of: image.name)
    if let disk = disks.first {
      if image.isReadOnly, let writer = disks.first(where: { $0.configuration?.isWritable == true }) {
        throw TapError(EBUSY, "\(image.name) is written by \(writer.words); open it without -R")
      }
      image.sectorCount = disk.properties?.sectorCount ?? 0
    } else {
      let store = try openImage(image)
      if let warning = store.warning { logger.warning("tap \(minor): \(warning)") }
      image.sectorCount = store.byteCount / 512
      taps.holds[minor] = store
    }
  }

  /// The name of an image, if it is one.
  func checkedName(_ name: String?) throws(TapError) -> String {
    guard let name, !name.isEmpty else { throw TapError(EINVAL, "an image is needed, as in aio:/PATH") }
    guard name.contains(":") else {
      throw TapError(EINVAL, "\"\(name)\" has no format; it is to be TYPE:FILE, as in aio:/PATH")
    }
    do throws(VbdError) {
      _ = try StoreTable.parse(name)
    } catch {
      let isKnown = StoreTable.kind(of: name.prefix { $0 != ":" }) != nil
      throw TapError(isKnown ? EINVAL : ENOENT, error.description)
    }
    return name
  }

  /// Opens an image for a tap alone.
  func openImage(_ image: TapImage) throws(TapError) -> any BlockStore {
    do throws(VbdError) {
      let (kind, location) = try StoreTable.parse(image.name)
      return try kind.open(
        StoreRequest(
          location: location, isReadOnly: image.isReadOnly, direct: image.isDirect ? .preferred : .never))
    } catch {
      throw TapError(error.errno ?? EINVAL, error.description)
    }
  }

  // MARK: Closing

  /// Seconds that a closing waits for a guest's disk that is being detached.
  private static let closingSeconds = 10

  /// Closes a tap's image when no guest's disk uses it any longer. One that is served is in the way, unless it is to
  /// be forced: then it is paused. One that is being detached is waited for.
  private func closeTap(
    _ minor: Int, _ question: TapQuestion, done: @escaping (Result<Void, TapError>) -> Void
  ) throws(TapError) {
    let seconds = question.timeoutSeconds ?? Self.closingSeconds
    let deadline = MonotonicClock.nowNanoseconds() + UInt64(seconds) * 1_000_000_000
    if question.force == true, let name = taps.table[minor]?.image?.name, !blockers(minor, name).isEmpty {
      return try pauseTap(minor, question.timeoutSeconds) { [weak self] result in
        done(result.flatMap { self?.finishClosing(minor) ?? .success(()) })
      }
    }
    if try closeUnlessUsed(minor) { return done(.success(())) }
    taps.waits.append(
      TapWait(deadline: deadline) { [weak self] isOver in
        do throws(TapError) {
          guard try self?.closeUnlessUsed(minor) ?? true else {
            guard isOver else { return false }
            throw TapError(ETIMEDOUT, "a guest's disk has not let go of the image after \(seconds) s")
          }
          done(.success(()))
        } catch {
          done(.failure(error))
        }
        return true
      })
  }

  /// False when a disk that is about to let go is to be waited for.
  private func closeUnlessUsed(_ minor: Int) throws(TapError) -> Bool {
    guard let tap = taps.table[minor], tap.process != nil else {
      throw TapError(ENODEV, "there is no minor \(minor) that is attached; `tap-ctl list` shows all")
    }
    if let name = tap.image?.name {
      let disks = blockers(minor, name)
      if let disk = disks.first(where: { $0.state != .closing && $0.state != .closed }) {
        throw TapError(
          EBUSY,
          "\(name) is used by \(disk.words); detach that first (`xl block-detach`), or use -f, which pauses it"
        )
      }
      guard disks.isEmpty else { return false }
    }
    try finishClosing(minor).get()
    return true
  }

  /// The disks that keep a tap from being closed: those of its image, unless another tap is there for them.
  private func blockers(_ minor: Int, _ name: String) -> [Vbd] {
    taps.taps(of: name).contains { $0.minor != minor } ? [] : users(of: name)
  }

  private func finishClosing(_ minor: Int) -> Result<Void, TapError> {
    do throws(TapError) {
      let tap = taps.table[minor]
      try taps.change { (table) throws(TapError) in try table.close(minor) }
      taps.door?.close(minor: minor)
      dropHold(minor)
      if let tap { unlink(tap) }
      if let name = tap?.image?.name { logger.info("tap \(minor) closed \(name)") }
      return .success(())
    } catch {
      return .failure(error)
    }
  }

  /// The rest of `destroy`.
  private func afterClosing(_ result: Result<Void, TapError>, _ minor: Int) -> Result<Void, TapError> {
    result.flatMap {
      do throws(TapError) {
        try taps.change { (table) throws(TapError) in
          try table.detach(minor)
          try table.free(minor)
        }
        return .success(())
      } catch {
        return .failure(error)
      }
    }
  }
}

extension TapQuestion {
  /// Refuses numbers that no command line lets through.
  fileprivate func check() throws(TapError) {
    guard process ?? 1 > 0 else { throw TapError(EINVAL, "\"process\" is a process ID, not \(process ?? 0)") }
    guard (0...Self.longestTimeout).contains(timeoutSeconds ?? 0) else {
      throw TapError(EINVAL, "\"timeoutSeconds\" is a number from 0 to \(Self.longestTimeout)")
    }
  }

  /// The minor, which has to be there.
  fileprivate var namedMinor: Int {
    get throws(TapError) {
      guard let minor else { throw TapError(EINVAL, "\"\(verb.rawValue)\" needs \"minor\"") }
      return minor
    }
  }
}
