import Blkback
import Foundation
import RingKit

/// What is asked on the control socket.
extension Daemon {
  /// Answers a question, now or when what it asks for is done.
  func answer(_ line: String, to ticket: ControlTicket) {
    switch ControlQuestion.parse(line) {
    case .failure(let failure):
      socket.answer(ticket, with: ControlReply.value(failure))
    case .success(let question):
      switch question.do {
      case .list where question.kind == DaemonVifs.kind, .stats where question.kind == DaemonVifs.kind:
        socket.answer(ticket, with: ControlReply.value(vifNumbers(for: question)))
      case .list:
        socket.answer(ticket, with: ControlReply.value(samples.map { DeviceReport($0) }))
      case .stats:
        answerNumbers(question, to: ticket)
      case .tap:
        if let asked = question.tap { answer(asked, to: ticket) }
      case .capture: beginCapture(question, for: ticket)
      case .pause, .resume, .resize, .insert, .eject, .limit:
        do throws(ControlFailure) {
          carryOut(question, on: try disk(of: question), for: ticket)
        } catch {
          socket.answer(ticket, with: ControlReply.value(error))
        }
      }
    }
  }

  private func answerNumbers(_ question: ControlQuestion, to ticket: ControlTicket) {
    let chosen = samples.filter { sample in
      (question.domain == nil || sample.address.domain.rawValue == question.domain)
        && (question.vdev == nil || sample.address.device == question.vdev)
        && (question.kind == nil || sample.address.kind == question.kind)
    }
    socket.answer(
      ticket,
      with: ControlReply.value(
        chosen.map {
          DiskNumbers($0, perQueue: question.queues == true, withSteps: question.steps == true)
        }))
  }

  private func vifNumbers(for question: ControlQuestion) -> [VifNumbers] {
    vifSamples.filter { sample in
      (question.domain == nil || sample.address.domain.rawValue == question.domain)
        && (question.vif == nil || sample.address.device == question.vif)
    }.map { VifNumbers($0, perQueue: question.queues == true) }
  }

  private func disk(of question: ControlQuestion) throws(ControlFailure) -> Vbd {
    let found = disks.values.filter {
      $0.identity.domain.rawValue == question.domain && $0.identity.device == question.vdev
        && (question.kind == nil || $0.identity.kind == question.kind)
    }
    let name = question.vdev.map { VirtualDevice(number: $0).description } ?? "the disk"
    guard let disk = found.first else {
      throw ControlFailure(
        "\(name) of domain \(question.domain ?? 0) is not served here; `ringback list` shows what is")
    }
    guard found.count == 1 else {
      let kinds = found.map(\.identity.kind).sorted().joined(separator: ", ")
      throw ControlFailure(
        "\(name) of domain \(question.domain ?? 0) is there as \(kinds); say which with --kind")
    }
    guard !isStopping else { throw ControlFailure("the daemon stops; ask the next one") }
    return disk
  }

  private func carryOut(_ question: ControlQuestion, on disk: Vbd, for ticket: ControlTicket) {
    // The disk calls back once: when it is done, when it cannot be, or when it goes before.
    let done: (VbdError?) -> Void = { [weak self, weak disk] failure in
      let text =
        if let failure {
          ControlReply.failure(failure.description)
        } else if let disk {
          ControlReply.value(DiskReply(DiskSample(disk)))
        } else {
          ControlReply.failure("the disk is gone")
        }
      self?.socket.answer(ticket, with: text)
    }
    switch question.do {
    case .pause: disk.pause(done: done)
    case .resume:
      let before = disk.configuration?.image
      disk.resume(image: question.image, allowsResize: question.allowResize ?? false) { [weak self] failure in
        if failure == nil, let before, let image = question.image {
          self?.followTaps(from: before, to: image)
        }
        done(failure)
      }
    case .resize:
      disk.resize(allowsShrink: question.allowShrink ?? false) { result in
        if case .failure(let error) = result { done(error) } else { done(nil) }
      }
    case .insert: disk.changeMedium(to: question.image, done: done)
    case .eject: disk.changeMedium(to: nil, done: done)
    case .limit:
      // Without new limits, the answer tells the present ones.
      guard let limits = question.limits else { return done(nil) }
      do throws(RateLimitsError) {
        disk.setLimits(try limits.checked(), done: done)
      } catch {
        done(VbdError(error))
      }
    case .list, .stats, .tap, .capture: done(nil)
    }
  }
}

extension DiskReply {
  init(_ sample: DiskSample) {
    domain = sample.address.domain.rawValue
    vdev = sample.address.device
    kind = sample.address.kind
    image = sample.image
    byteCount = sample.byteCount
    isPaused = sample.isPaused
    limits = sample.limits
  }
}
