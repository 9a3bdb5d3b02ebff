import Foundation
import Glibc
import RingKit
import Testing

/// What is not TCP, between two network stacks: nothing repairs what a backend loses or changes here.
@Suite(
  .serialized, .enabled(if: networkObstacle == nil, Comment(rawValue: networkObstacle ?? "")),
  .timeLimit(.minutes(10)))
struct NetworkDatagramTests {
  /// One that fills a frame, one byte more (two fragments of IP), and the largest: 44 fragments in one go.
  static let byteCounts = [1, 1472, 1473, 8192, 65507]

  @Test(arguments: ["", "sg,csum4,csum6,gso4,gso6"])
  func datagramsOfEverySizePassBothWays(without: String) throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest(without.isEmpty ? [] : ["--without", without])
    let (v4, v6) = NetworkStage.addresses
    for (address, source, sink) in [
      (v4.guest, network.host, network.guest), (v4.host, network.guest, network.host),
      (v6.guest, network.host, network.guest), (v6.host, network.guest, network.host),
    ] {
      let receiver = try sink.inside { try DatagramSocket(boundTo: address) }
      let sender = try source.inside { try DatagramSocket(boundTo: nil, like: address) }
      for byteCount in Self.byteCounts {
        let sent = testBytes(from: byteCount, count: byteCount)
        try sender.send(sent, to: address, port: receiver.port)
        #expect(try receiver.receive() == sent, "\(byteCount) bytes to \(address)")
      }
    }
    for stack in [network.host, network.guest] {
      #expect(try NetworkStage.wrongChecksums(in: stack) == 0)
    }
    try network.stopGuest()
  }

  @Test func aGroupIsHeardBothWays() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest()
    let group = "239.1.2.3"
    for (source, sink, sourceAddress, sinkAddress) in [
      (network.host, network.guest, NetworkStage.addresses.v4.host, NetworkStage.addresses.v4.guest),
      (network.guest, network.host, NetworkStage.addresses.v4.guest, NetworkStage.addresses.v4.host),
    ] {
      let receiver = try sink.inside { try DatagramSocket(boundTo: group) }
      try receiver.join(group, at: sinkAddress)
      let sender = try source.inside { try DatagramSocket(boundTo: nil, like: group) }
      try sender.sendGroups(from: sourceAddress)
      let sent = testBytes(from: 3, count: 1000)
      try sender.send(sent, to: group, port: receiver.port)
      #expect(try receiver.receive() == sent)
    }
    try network.stopGuest()
  }

  /// Frames of a VLAN keep their tag and their bytes, also the four that they are longer.
  @Test func taggedFramesKeepTheirTag() throws {
    let network = try NetworkStage()
    try network.attach()
    try network.setUpHost()
    try network.startGuest()
    for (source, sourceName, sink, sinkName) in [
      (network.host, "vif1.0", network.guest, "eth0"), (network.guest, "eth0", network.host, "vif1.0"),
    ] {
      let receiver = try sink.inside { try FrameSocket(of: sinkName) }
      let sender = try source.inside { try FrameSocket(of: sourceName) }
      for byteCount in [46, 1500] {
        let payload = testBytes(from: byteCount, count: byteCount)
        try sender.send(tag: 0x6005, payload)
        let frame = try receiver.receive()
        #expect(frame.tag == 0x6005)
        #expect(frame.payload == payload)
      }
    }
    try network.stopGuest()
  }
}
