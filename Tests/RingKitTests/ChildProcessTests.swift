import Foundation
import RingKit
import Testing

/// Programs started with nothing but what they are given.
@Suite struct ChildProcessTests {
  /// Waits for the end of a process and gives what it said on standard error.
  private func end(_ process: ChildProcess) throws -> (ChildProcess.End, String) {
    var poll = DescriptorPoll()
    poll.set([(process.errorDescriptor, false)])
    var said: [UInt8] = []
    for _ in 0..<1000 {
      _ = try poll.wait(timeoutMilliseconds: 10_000)
      guard let bytes = process.readErrors() else { continue }
      if bytes.isEmpty { break }
      said += bytes
    }
    let end = try #require(process.killAndReap())
    return (end, String(decoding: said, as: UTF8.self))
  }

  private func shell(_ script: String, environment: [String] = [], passing: [Int32] = []) throws
    -> (ChildProcess.End, String)
  {
    try end(
      ChildProcess(path: "/bin/sh", arguments: ["-c", script], environment: environment, passing: passing))
  }

  @Test func itsEndAndItsWordsAreTold() throws {
    let (end, said) = try shell("echo wrong >&2; exit 3")
    #expect(end == .exited(status: 3))
    #expect(said == "wrong\n")
    #expect("\(end)" == "it ended with status 3")
    #expect(try shell("kill -9 $$").0 == .killed(signal: 9))
  }

  @Test func aProgramThatIsNotThereIsAnError() {
    #expect(throws: SystemError.self) { try ChildProcess(path: "/nonexistent", arguments: []) }
  }

  @Test func itHasNothingButWhatItIsGiven() throws {
    let (_, environment) = try shell("/usr/bin/env >&2", environment: ["GIVEN=1"])
    #expect(
      environment.split(separator: "\n").filter { $0 != "PWD=/" && !$0.hasPrefix("PWD=") } == ["GIVEN=1"])
    // Descriptors of this process that would be inherited: the pipe is one.
    let pipe = Pipe()
    let left = dup(pipe.fileHandleForReading.fileDescriptor)
    defer { close(left) }
    let given = pipe.fileHandleForWriting.fileDescriptor
    let (_, descriptors) = try shell("cd /proc/self/fd && echo * >&2; echo here >&3", passing: [given])
    // The shell itself opens the directory for the pattern.
    let numbers = Set(descriptors.split(whereSeparator: { $0 == " " || $0 == "\n" }).compactMap { Int($0) })
    #expect(numbers.isSuperset(of: [0, 1, 2, 3]))
    #expect(numbers.subtracting([0, 1, 2, 3]).count <= 1, "\(numbers)")
    #expect(pipe.fileHandleForReading.availableData == Data("here\n".utf8))
  }

  @Test func itTakesSignalsThoughThisThreadDoesNot() throws {
    let process = try ChildProcess(path: "/bin/sleep", arguments: ["1000"])
    #expect(process.reap() == nil)
    process.ask(.end)
    #expect(try end(process).0 == .killed(signal: 15))
  }

  /// What ends with its thread ends with its daemon, however that ended.
  @Test func itCanEndWithItsThread() throws {
    try #require(FileManager.default.isExecutableFile(atPath: "/usr/bin/setpriv"), "util-linux is missing")
    let started = try Mailbox<ChildProcess>()
    let thread = try OSThread(name: "starts") {
      let process = try? ChildProcess(
        path: "/usr/bin/setpriv",
        arguments: ["--pdeathsig=TERM", "--", "/bin/sh", "-c", "echo ready >&2; exec /bin/sleep 1000"])
      guard let process else { return }
      // The signal is asked for by the program itself: it has to have got that far.
      var poll = DescriptorPoll()
      poll.set([(process.errorDescriptor, false)])
      _ = try? poll.wait(timeoutMilliseconds: 10_000)
      started.post(process)
    }
    thread.join()
    let process = try #require(started.take().first)
    #expect(try end(process).0 == .killed(signal: 15))
  }

  @Test func aPrivateSocketHasNoName() throws {
    let directory = FileManager.default.temporaryDirectory.appending(
      path: "rb-\(UUID().uuidString.prefix(8))")
    defer { try? FileManager.default.removeItem(at: directory) }
    let socket = try PrivateSocket(below: directory.path)
    #expect(try FileManager.default.contentsOfDirectory(atPath: directory.path).isEmpty)
    #expect(try LocalSocket.connect(path: socket.path).descriptor >= 0)
    // Where nothing can be made, the temporary directory serves.
    let elsewhere = try PrivateSocket(below: "/proc/none")
    #expect(try LocalSocket.connect(path: elsewhere.path).descriptor >= 0)
  }

  @Test func factsOfAnImageAreFound() throws {
    let file = FileManager.default.temporaryDirectory.appending(path: "rb-\(UUID().uuidString.prefix(8))")
      .path
    defer { try? FileManager.default.removeItem(atPath: file) }
    try Data(count: 4096).write(to: URL(filePath: file))
    let facts = try ImageFacts(path: file)
    #expect(facts.owner == geteuid() && !facts.isBlockDevice)
    #expect(throws: StorageError.self) { try ImageFacts(path: "/nonexistent") }
    #expect(throws: StorageError.self) { try ImageFacts(path: "/dev/null") }
  }
}
