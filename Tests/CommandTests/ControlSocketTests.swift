import Foundation
import RingKit
import Testing

@testable import ringback

@Suite struct ControlSocketTests {
  private let path =
    FileManager.default.temporaryDirectory.path + "/ringback-socket-\(UUID().uuidString.prefix(8))"

  /// Serves until `count` questions have come; at most a few seconds.
  private func questions(_ socket: inout ControlSocket, _ count: Int) throws -> [(String, ControlTicket)] {
    var questions: [(String, ControlTicket)] = []
    var poll = DescriptorPoll()
    let deadline = MonotonicClock.nowNanoseconds() + 20_000_000_000
    while questions.count < count {
      try #require(
        MonotonicClock.nowNanoseconds() < deadline, "\(questions.count) of \(count) questions came")
      poll.set(socket.descriptors)
      for descriptor in try poll.wait(timeoutMilliseconds: 100) {
        if let (question, ticket) = socket.serve(descriptor, atNanoseconds: 0) {
          questions.append((question, ticket))
        }
      }
    }
    return questions
  }

  private func send(_ text: String, on client: LocalSocket) throws {
    #expect(try client.write(Array(text.utf8)[...]) == text.utf8.count)
  }

  private func answer(to client: LocalSocket) throws -> String {
    var reply: [UInt8] = []
    var poll = DescriptorPoll()
    poll.set([(client.descriptor, false)])
    while true {
      try #require(try !poll.wait(timeoutMilliseconds: 20_000).isEmpty, "no answer came")
      guard let bytes = try client.read(), !bytes.isEmpty else { break }
      reply += bytes
    }
    return String(decoding: reply, as: UTF8.self)
  }

  @Test func aHundredWaitAndAreAnsweredInAnyOrder() throws {
    var socket = try ControlSocket(path: path)
    let clients = try (0..<100).map { _ in try LocalSocket.connect(path: path) }
    for (index, client) in clients.enumerated() { try send("question \(index)\n", on: client) }
    let asked = try questions(&socket, 100)
    #expect(Set(asked.map(\.0)).count == 100 && socket.isOwed)
    for (question, ticket) in asked.reversed() { socket.answer(ticket, with: "answer to \(question)") }
    for (index, client) in clients.enumerated() {
      #expect(try answer(to: client) == "answer to question \(index)")
    }
    #expect(!socket.isOwed)
  }

  @Test func whoGoesAwayIsForgottenAndItsAnswerGoesToNobodyElse() throws {
    var socket = try ControlSocket(path: path)
    var gone: LocalSocket? = try LocalSocket.connect(path: path)
    try send("pause\n", on: #require(gone))
    let (_, ticket) = try questions(&socket, 1)[0]
    gone = nil
    socket.dropIdle(atNanoseconds: 0)
    #expect(!socket.isOwed)
    // The next gets the same descriptor.
    let next = try LocalSocket.connect(path: path)
    try send("list\n", on: next)
    let (_, other) = try questions(&socket, 1)[0]
    socket.answer(ticket, with: "late")
    socket.answer(other, with: "list")
    #expect(try answer(to: next) == "list")
  }

  @Test func theRestIsToldAtTheEnd() throws {
    var socket = try ControlSocket(path: path)
    let client = try LocalSocket.connect(path: path)
    try send("pause\n", on: client)
    _ = try questions(&socket, 1)
    socket.finish(saying: "stopping")
    #expect(try answer(to: client) == "stopping")
  }

  @Test func longQuestionsAndSilenceEnd() throws {
    var socket = try ControlSocket(path: path)
    let long = try LocalSocket.connect(path: path)
    let silent = try LocalSocket.connect(path: path)
    try send(String(repeating: "x", count: ControlSocket.questionLimit + 2), on: long)
    var poll = DescriptorPoll()
    for _ in 0..<4 {
      poll.set(socket.descriptors)
      for descriptor in try poll.wait(timeoutMilliseconds: 1000) {
        let heard = socket.serve(descriptor, atNanoseconds: 0)
        #expect(heard == nil)
      }
      if socket.descriptors.count == 2 { break }
    }
    #expect(try answer(to: long).contains("\(ControlSocket.questionLimit)"))
    socket.dropIdle(atNanoseconds: ControlSocket.patienceNanoseconds)
    #expect(try answer(to: silent).isEmpty)
    #expect(socket.descriptors.count == 1)
  }

  /// Questions that are refused, and a word of the refusal.
  @Test(arguments: [
    ("", "unknown question"), ("pause", "JSON"), ("{", "JSON"), ("[]", "unknown"),
    ("{\"domain\":1}", "\"do\""),
    ("{\"do\":\"fly\"}", "pause"), ("{\"do\":\"pause\"}", "vdev"),
    ("{\"do\":\"pause\",\"domain\":1}", "vdev"),
    ("{\"do\":\"pause\",\"domain\":\"1\",\"vdev\":2}", "domain"),
    ("{\"do\":\"pause\",\"domain\":70000,\"vdev\":2}", "JSON"),
    ("{\"do\":\"insert\",\"domain\":1,\"vdev\":2}", "image"),
    ("{\"do\":\"limit\",\"domain\":1,\"vdev\":2,\"limits\":5}", "limits"),
  ])
  func malformedQuestionsAreRefused(line: String, word: String) {
    switch ControlQuestion.parse(line) {
    case .success: Issue.record("\(line) was taken")
    case .failure(let failure): #expect(failure.error.contains(word), "\(line): \(failure.error)")
    }
  }

  @Test func questionsSurviveTheWire() throws {
    var question = ControlQuestion(.limit)
    (question.domain, question.vdev, question.kind) = (1, 51712, "vbd3")
    question.limits = LimitReport()
    #expect(try ControlQuestion.parse(question.line) == .success(question))
    #expect(ControlQuestion.parse(" list ") == .success(ControlQuestion(.list)))
    #expect(
      ControlQuestion.parse("{\"do\":\"limit\",\"domain\":1,\"vdev\":51712,\"kind\":\"vbd3\",\"limits\":{}}")
        == .success(question))
  }
}
