import Netback
import RingKit

/// Which frames of an interface are wanted.
struct CaptureQuestion: Codable, Equatable {
  /// Bytes of each frame that are kept, 14 and more; all if absent.
  var snapLength: Int?
  /// Frames, after which it ends.
  var count: UInt64?
  /// Seconds, after which it ends.
  var seconds: Double?
}

/// A capture that somebody takes the frames of.
struct RunningCapture {
  let capture: FrameCapture
  let vif: DeviceAddress
  let ticket: ControlTicket
  /// When it ends by itself; max for never.
  let endNanoseconds: UInt64
}

/// Captures, each of which answers a question with a pcapng file that goes on until it is ended: by the asker, who
/// ends its own half of the connection, by a limit of the question's, or with the interface or the daemon.
extension Daemon {
  func beginCapture(_ question: ControlQuestion, for ticket: ControlTicket) {
    let wanted = question.capture ?? CaptureQuestion()
    let address = DeviceAddress(
      kind: DaemonVifs.kind, domain: DomainID(rawValue: question.domain ?? 0), device: question.vif ?? 0)
    let name = "vif\(address.domain).\(address.device)"
    guard let vif = vifs.devices[address], !isStopping else {
      return socket.answer(
        ticket,
        with: ControlReply.failure(
          isStopping
            ? "the daemon stops; ask the next one"
            : "\(name) is not served here; `ringback list` shows what is"))
    }
    let now = MonotonicClock.nowNanoseconds()
    let bell = vifs.bell
    let capture = FrameCapture(
      name: name, snapLength: wanted.snapLength ?? PcapngWriter.largestSnapLength,
      frameLimit: wanted.count.map { max(1, $0) }, epoch: MonotonicClock.epochOffsetNanoseconds()
    ) { bell.post(()) }
    do throws(VifError) {
      try vif.begin(capture)
    } catch {
      return socket.answer(ticket, with: ControlReply.failure(error.description))
    }
    let length = wanted.seconds.map { UInt64(min(max($0, 0), 1e9) * 1e9) }
    vifs.captures.append(
      RunningCapture(
        capture: capture, vif: address, ticket: ticket, endNanoseconds: length.map { now + $0 } ?? .max))
    socket.beginStream(to: ticket)
    log(.information, "frames are captured", about: address)
    // The file's head is there already.
    bell.post(())
  }

  /// Passes on what captures have, and ends those that are to end.
  func serveCaptures(atNanoseconds now: UInt64) {
    _ = vifs.bell.take()
    guard !vifs.captures.isEmpty else { return }
    var going: [RunningCapture] = []
    for running in vifs.captures {
      let isOver = now >= running.endNanoseconds || running.capture.isFull
      switch socket.streamState(of: running.ticket) {
      case .gone: end(running, isHeard: false)
      case .wantsEnd: end(running)
      case .busy where isOver, .ready where isOver: end(running)
      case .busy: going.append(running)
      case .ready:
        var bytes: [UInt8] = []
        running.capture.take(into: &bytes)
        if !bytes.isEmpty { socket.stream(bytes, to: running.ticket) }
        going.append(running)
      }
    }
    vifs.captures = going
  }

  /// Ends all captures of an interface, with what they have; nil for all interfaces.
  func endCaptures(of vif: DeviceAddress? = nil) {
    for running in vifs.captures where vif == nil || running.vif == vif { end(running) }
    vifs.captures.removeAll { vif == nil || $0.vif == vif }
  }

  private func end(_ running: RunningCapture, isHeard: Bool = true) {
    vifs.devices[running.vif]?.end(running.capture)
    let counts = running.capture.counts
    log(
      .information, "the capture ended with \(counts.captured) frames, \(counts.dropped) left out",
      about: running.vif)
    guard isHeard else { return }
    var bytes: [UInt8] = []
    running.capture.take(into: &bytes)
    bytes += running.capture.ending(atNanoseconds: MonotonicClock.nowNanoseconds())
    socket.endStream(bytes, to: running.ticket)
  }
}
