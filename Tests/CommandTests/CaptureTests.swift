import Foundation
import Glibc
import RingKit
import Testing

@testable import ringback

/// `ringback capture`, against what two real network stacks have sent.
@Suite(
  .serialized, .enabled(if: networkObstacle == nil, Comment(rawValue: networkObstacle ?? "")),
  .timeLimit(.minutes(10)))
struct CaptureTests {
  private func isEcho(_ frame: PcapngReader.Frame, type: UInt8) -> Bool {
    frame.bytes.count >= 42 && frame.bytes[12...13] == [8, 0] && frame.bytes[23] == 1
      && frame.bytes[34] == type
  }

  private func read(_ path: String) throws -> PcapngReader {
    try PcapngReader(Array(Data(contentsOf: URL(filePath: path))))
  }

  /// Starts a capture and waits until the daemon has it.
  private func begin(
    _ vif: String, to file: String, on host: [String], of daemon: Command.Running?, _ options: [String] = []
  ) throws -> Command.Running {
    let running = try Command.Running(["capture", vif, "-w", file] + options + host)
    _ = try daemon?.wait(for: "frames are captured")
    return running
  }

  private func interrupt(_ running: Command.Running) -> Command.Outcome {
    kill(running.process.processIdentifier, SIGINT)
    return running.finish()
  }

  @Test func aSwitchsFramesAreThoseThatPassed() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    try network.ping(first, second)
    let file = "\(network.stage.directory)/lan.pcapng"
    let running = try begin(
      "vif1.0", to: file, on: network.stage.host + network.control, of: network.daemon)
    let pattern = "c0ffee"
    try first.network.execute(
      "ping", ["-c", "5", "-i", "0.2", "-W", "5", "-s", "700", "-p", pattern, second.v4])
    // Long packets, which would go past the daemon's memory.
    let direct = try network.number("transmit", "directPackets", of: first)
    let count = try NetworkStage.transfer(
      1 << 20, to: second.v4, from: first.network, to: second.network)
    #expect(count == 1 << 20)
    #expect(try network.number("transmit", "directPackets", of: first) == direct)
    let end = interrupt(running)
    #expect(end.status == 0 && end.output.contains("frames captured"), "\(end.output)")

    let capture = try read(file)
    #expect(capture.interfaceName == "vif1.0" && capture.snapLength == 262_144)
    let requests = capture.frames.filter { isEcho($0, type: 8) }
    let replies = capture.frames.filter { isEcho($0, type: 0) }
    #expect(requests.count == 5 && requests.allSatisfy { $0.direction == 1 })
    #expect(replies.count == 5 && replies.allSatisfy { $0.direction == 2 })
    for (request, reply) in zip(requests, replies) {
      #expect(request.bytes.count == 742 && request.wholeByteCount == 742)
      // The data behind the time that ping puts first.
      let data = Array(request.bytes[58...])
      #expect(data.enumerated().allSatisfy { $1 == [0xC0, 0xFF, 0xEE][($0 + 16) % 3] })
      #expect(reply.bytes[42...] == request.bytes[42...])
      #expect(reply.time >= request.time)
    }
    // Every byte of the transfer was seen at least once.
    let sent = capture.frames.filter { $0.direction == 1 }.reduce(0) { $0 + $1.wholeByteCount }
    #expect(sent > 1 << 20 && capture.frames.contains { $0.bytes.count > 1514 })
    let statistics = try #require(capture.statistics)
    #expect(statistics.received == UInt64(capture.frames.count) && statistics.dropped == 0)
    let now = UInt64(Date().timeIntervalSince1970 * 1e9)
    #expect(capture.frames.allSatisfy { $0.time <= now && now - $0.time < 600_000_000_000 })
    // Once nobody watches, packets are copied from guest to guest again.
    try network.transferAll(first, second)
    #expect(try network.number("transmit", "directPackets", of: first) > direct)
  }

  @Test func aTAPsFramesWithASnapLengthAndACount() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest()
    try network.ping()
    let file = "\(network.stage.directory)/tap.pcapng"
    let running = try begin(
      "vif1.0", to: file, on: network.stage.host + network.control, of: network.daemon,
      ["--snap", "60", "--count", "6"])
    try network.host.execute(
      "ping", ["-c", "4", "-i", "0.2", "-W", "5", "-s", "700", NetworkStage.addresses.v4.guest])
    let end = running.finish()
    #expect(end.status == 0 && end.output.contains("6 frames captured, 0 left out"), "\(end.output)")
    let capture = try read(file)
    #expect(capture.frames.count == 6 && capture.snapLength == 60)
    for frame in capture.frames where isEcho(frame, type: 8) || isEcho(frame, type: 0) {
      #expect(frame.bytes.count == 60 && frame.wholeByteCount == 742)
      #expect(frame.direction == (isEcho(frame, type: 8) ? 2 : 1))
    }
    #expect(capture.frames.contains { isEcho($0, type: 8) })
    try network.stopGuest()
  }

  /// Through a pipe, as people use it; the end is a time, and nothing came.
  @Test func secondsAndAPipe() throws {
    let network = try SwitchStage()
    let outcome = try network.ringback(
      ["capture", "vif2.0", "-w", "-", "--seconds", "0.2"] + network.control)
    #expect(outcome.status == 0 && outcome.errors.contains("0 frames captured"), "\(outcome.errors)")
    try #require(outcome.output.utf8.count > 0)
  }

  /// It goes on over a guest's connections, and ends with the interface.
  @Test func aCaptureOutlivesAConnectionButNotTheInterface() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    let file = "\(network.stage.directory)/two.pcapng"
    let running = try begin(
      "vif2.0", to: file, on: network.stage.host + network.control, of: network.daemon)
    try network.ping(first, second)
    try network.stop(second)
    try network.start(second)
    try network.ping(first, second)
    try network.stop(second)
    #expect(try network.ringback(["network-detach", "--domain", "2"]).status == 0)
    let end = running.finish()
    #expect(end.status == 0, "\(end.output)")
    let capture = try read(file)
    #expect(capture.frames.count { isEcho($0, type: 8) } == 4)
    #expect(capture.statistics != nil)
  }

  /// Nobody takes the frames: they are counted and left out, and the guests notice nothing.
  @Test func nothingWaitsForWhoDoesNotRead() throws {
    let network = try SwitchStage()
    let (first, second) = (network.guests[0], network.guests[1])
    for guest in network.guests { try network.start(guest) }
    let file = "\(network.stage.directory)/slow.pcapng"
    let running = try begin(
      "vif1.0", to: file, on: network.stage.host + network.control, of: network.daemon)
    kill(running.process.processIdentifier, SIGSTOP)
    try network.transferAll(first, second, byteCount: 4 << 20)
    kill(running.process.processIdentifier, SIGCONT)
    let end = interrupt(running)
    #expect(end.status == 0, "\(end.output)")
    let statistics = try #require(try read(file).statistics)
    #expect(statistics.dropped > 0)
    #expect(end.output.contains("\(statistics.dropped) left out"), "\(end.output)")
  }

  /// Captures end with the daemon, whole.
  @Test func aDaemonThatStopsEndsTheFile() throws {
    let network = try SwitchStage()
    for guest in network.guests { try network.start(guest) }
    let file = "\(network.stage.directory)/end.pcapng"
    let running = try begin(
      "vif1.0", to: file, on: network.stage.host + network.control, of: network.daemon)
    try network.ping(network.guests[0], network.guests[1])
    try network.stopDaemon()
    #expect(running.finish().status == 0)
    let capture = try read(file)
    #expect(capture.frames.contains { isEcho($0, type: 8) } && capture.statistics != nil)
  }

  @Test func whatCannotBeCapturedIsTold() throws {
    let network = try SwitchStage()
    let file = "\(network.stage.directory)/none.pcapng"
    func refused(_ arguments: [String], _ words: String, _ location: SourceLocation = #_sourceLocation) throws
    {
      let outcome = try network.ringback(["capture"] + arguments + network.control)
      #expect(
        outcome.status != 0 && outcome.errors.contains(words), "\(outcome.errors)", sourceLocation: location)
    }
    try refused(["vif7.0", "-w", file], "vif7.0 is not served here")
    #expect(!FileManager.default.fileExists(atPath: file))
    try refused(["eth0", "-w", file], "eth0")
    try refused(["vif01.0", "-w", file], "vif01.0")
    try refused(["vif1.0"], "--write")
    try refused(["vif1.0", "-w", file, "--snap", "13"], "--snap is 14 to 262144")
    try refused(["vif1.0", "-w", file, "--count", "0"], "--count is 1 or more")
    try refused(["vif1.0", "-w", file, "--seconds", "0"], "--seconds is more than 0")
    try refused(["vif1.0", "-w", "/no/such/place"], "/no/such/place cannot be written")
    // More at a time than are allowed.
    let running = try (0..<4).map { _ in
      try Command.Running(["capture", "vif1.0", "-w", "-"] + network.stage.host + network.control)
    }
    // The interface's name is in the file's head, which comes at once.
    for capture in running { _ = try capture.wait(for: "vif1.0") }
    try refused(["vif1.0", "-w", file], "captured 4 times already")
    for capture in running { #expect(interrupt(capture).status == 0) }
  }
}
