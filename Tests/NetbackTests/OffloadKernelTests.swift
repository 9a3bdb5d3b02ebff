import COracle
import Netback
import RingKit
import Simulator
import Testing

/// Two TAPs on a bridge of this machine's kernel, which completes and cuts on the way what the receiver does
/// not take.
final class KernelTaps {
  private var taps = ringback_test_taps()
  private var buffer = [UInt8](repeating: 0, count: 12 + 65536 + 8)

  /// Whether this machine lets us have them: it wants root and /dev/net/tun.
  static let areAvailable = (try? KernelTaps()) != nil

  struct OpenFailed: Error {
    let errno: Int32
  }

  struct Silence: Error {}

  /// `offloads`: TUN_F_* that the receiver takes.
  init(offloads: UInt32 = 0) throws {
    let errno = unsafe ringback_test_taps_open(&taps, offloads)
    guard errno == 0 else { throw OpenFailed(errno: errno) }
  }

  deinit { unsafe ringback_test_taps_close(&taps) }

  /// Writes a frame behind its header; the errno.
  func send(_ header: VirtioNetHeader, _ frame: PrivateBytes, _ memory: FrameMemory) -> Int32 {
    let front = memory.room(12)
    header.write(to: front, at: 0)
    let bytes = front.array + frame.array
    return unsafe ringback_test_tap_write(taps.sender, bytes, bytes.count)
  }

  /// The next frame that we have sent and not the bridge.
  func receive() throws -> [UInt8] {
    while true {
      let bytes = try read(taps.receiver)
      if bytes.count >= 26, Array(bytes[18..<24]) == [2, 0, 0, 0, 0, 7] { return bytes }
    }
  }

  func datagram(_ network: TestFrame.Network) throws -> [UInt8] {
    try read(network == .ipv4 ? taps.udp4 : taps.udp6)
  }

  private func read(_ descriptor: Int32) throws -> [UInt8] {
    let count = unsafe ringback_test_tap_read(descriptor, &buffer, buffer.count, 20_000)
    guard count >= 0 else { throw Silence() }
    return Array(buffer[0..<count])
  }
}

/// What this machine's kernel makes of our headers, and whether it makes what we make.
@Suite(.enabled(if: KernelTaps.areAvailable)) struct OffloadKernelTests {
  let memory: FrameMemory

  init() throws { memory = try FrameMemory() }

  func prepare(_ frame: TestFrame, size: UInt16? = nil) throws -> (PrivateBytes, PacketOffload) {
    let bytes = memory.load(frame.bytes)
    let extra = size.map { NetExtraInfo(segmentation: frame.segmentationType, size: $0) }
    let offload = try TransmitOffload.prepare(
      bytes, flags: .checksumBlank, segmentation: extra, hash: nil)
    return (bytes, offload)
  }

  @Test func trap19_theKernelCompletesABlankChecksumAsWeDo() throws {
    let taps = try KernelTaps()
    for (payload, padding) in [(0, 0), (1, 0), (33, 0), (1300, 0), (33, 9)] {
      for var frame in FrameShapes.all(payload: payload) {
        frame.padding = [UInt8](repeating: 0xEE, count: padding)
        var (bytes, offload) = try prepare(frame)
        #expect(taps.send(VirtioNetHeader(offload), bytes, memory) == 0)
        let received = try taps.receive()
        #expect(SoftwareChecksum.complete(bytes, &offload))
        #expect(received[0] == 0)
        // A bridge takes padding off where there is no tag.
        let count = bytes.count - padding
        #expect(received[12..<12 + count] == bytes.array[..<count])
        #expect(received[(12 + count)...].allSatisfy { $0 == 0 })
      }
    }
  }

  @Test func trap20_theKernelCutsAsWeDo() throws {
    let taps = try KernelTaps()
    for (payload, size) in [(100, UInt16(33)), (99, 33), (3000, 1448), (60000, 1448), (65400, 9000)] {
      for flags in [UInt8(0x18), 0xD9] {
        for var frame in FrameShapes.all(payload: payload) where frame.transport == .tcp {
          frame.transportFlags = flags
          let (bytes, offload) = try prepare(frame, size: size)
          #expect(offload.segmentation != .none)
          #expect(taps.send(VirtioNetHeader(offload), bytes, memory) == 0)
          let segmenter = Segmenter(frame: bytes, offload: offload)
          for index in 0..<segmenter.segmentCount {
            let received = try taps.receive()
            let room = memory.room(segmenter.byteCount(of: 0))
            let (count, _) = segmenter.write(index, to: room)
            #expect(received[0] == 0 && Array(received[12...]) == Array(room.array[0..<count]))
          }
        }
      }
    }
  }

  /// Linux counts TCP's options as payload when it decides whether a frame is to be cut, and not when it cuts.
  @Test func trap20_aSegmentWithOptionsThatFitsIsNotLost() throws {
    let taps = try KernelTaps()
    let frame = TestFrame(transportOptions: FrameShapes.timestamps, payload: TestFrame.payload(1440))
    let (bytes, offload) = try prepare(frame, size: 1448)
    let expected = bytes.array
    var header = VirtioNetHeader(offload)
    #expect(header.segmentationType == 0)
    // As the frontend told it, it is taken and lost: what comes out is the one sent after it.
    header.segmentationType = 1
    header.segmentSize = 1448
    #expect(taps.send(header, bytes, memory) == 0)
    let marker = memory.load(TestFrame(transport: .udp, payload: [7]).bytes)
    #expect(taps.send(VirtioNetHeader(), marker, memory) == 0)
    #expect(Array(try taps.receive()[12...]) == marker.array)
    // As we tell it, it arrives.
    let again = memory.load(expected)
    #expect(taps.send(VirtioNetHeader(offload), again, memory) == 0)
    #expect(try taps.receive().count == 12 + expected.count)
  }

  @Test func aReaderThatTakesOffloadsGetsThemBack() throws {
    let taps = try KernelTaps(offloads: 7)  // CSUM, TSO4, TSO6
    for size in [nil, 1000] as [UInt16?] {
      for frame in FrameShapes.all(payload: size == nil ? 1300 : 3000)
      where size == nil || frame.transport == .tcp {
        // Two tags, or headers behind that of IPv6, and Linux cuts in any case.
        if size != nil, frame.tags.count > 1 || !frame.extensions.isEmpty { continue }
        let (bytes, offload) = try prepare(frame, size: size)
        #expect(taps.send(VirtioNetHeader(offload), bytes, memory) == 0)
        let sent = bytes.array
        let received = memory.load(try taps.receive())
        let header = VirtioNetHeader(reading: received, at: 0)
        let got = received.slice(from: 12, count: received.count - 12)
        #expect(got.array == sent)
        #expect(try header.offload(frame: got) == offload)
        let extra = size.map { NetExtraInfo(segmentation: frame.segmentationType, size: $0) }
        #expect(
          ReceiveOffload.action(for: offload, frame: got, accepted: .all)
            == .send(flags: [.checksumBlank, .dataValidated], segmentation: extra))
      }
    }
  }

  @Test func aSocketTakesTheDatagramsThatWeSum() throws {
    let taps = try KernelTaps()
    for network in TestFrame.Network.allCases {
      for payload in [1, 2, 33, 1400] {
        var frame = TestFrame(network: network, transport: .udp, payload: TestFrame.payload(payload))
        frame.destination = [2, 0, 0, 0, 0, 1]
        var (bytes, offload) = try prepare(frame)
        let blank = VirtioNetHeader(offload)
        #expect(blank.flags == 1 && taps.send(blank, bytes, memory) == 0)
        #expect(try taps.datagram(network) == frame.payload)
        #expect(SoftwareChecksum.complete(bytes, &offload))
        // Told as validated, and with nothing told: a TAP checks either.
        for header in [VirtioNetHeader(offload), VirtioNetHeader()] {
          #expect(taps.send(header, bytes, memory) == 0)
          #expect(try taps.datagram(network) == frame.payload)
        }
        let complete = bytes.array
        var wrong = complete
        wrong[wrong.count - 1] ^= 1
        let bad = memory.load(wrong)
        for header in [VirtioNetHeader(offload), VirtioNetHeader()] {
          #expect(taps.send(header, bad, memory) == 0)
        }
        let good = memory.load(complete)
        #expect(taps.send(VirtioNetHeader(), good, memory) == 0)
        #expect(try taps.datagram(network) == frame.payload)
      }
    }
  }

  @Test func theKernelRefusesWhatWeRefuse() throws {
    let taps = try KernelTaps()
    let (bytes, offload) = try prepare(TestFrame(payload: TestFrame.payload(3000)), size: 1448)
    let right = VirtioNetHeader(offload)
    #expect(taps.send(right, bytes, memory) == 0)
    var wrong: [VirtioNetHeader] = []
    for size in [UInt16(0), 0xFFFF] {
      var header = right
      header.segmentSize = size
      wrong.append(header)
    }
    var header = right
    header.checksumOffset = 6
    wrong.append(header)
    header = right
    header.checksumStart = UInt16(bytes.count - 1)
    wrong.append(header)
    header = right
    header.segmentationType = 2
    wrong.append(header)
    for header in wrong {
      #expect(taps.send(header, bytes, memory) == 22)  // EINVAL
    }
    #expect(taps.send(VirtioNetHeader(), memory.load([UInt8](repeating: 2, count: 13)), memory) == 22)
  }

  @Test func theKernelTakesWhateverWePrepare() throws {
    let taps = try KernelTaps()
    var numbers = SeededNumbers(seed: 35)
    let shapes = FrameShapes.all(payload: 90).map(\.bytes)
    var taken = 0
    for _ in 0..<6000 {
      var bytes = shapes[Int.random(in: 0..<shapes.count, using: &numbers)]
      for _ in 0..<Int.random(in: 0...3, using: &numbers) {
        bytes[Int.random(in: 12..<bytes.count, using: &numbers)] = numbers.any(UInt8.self)
      }
      if numbers.chance(1, in: 8) { bytes.removeLast(Int.random(in: 0...bytes.count, using: &numbers)) }
      var extra: NetExtraInfo?
      if numbers.chance(1, in: 2) {
        let type = NetSegmentationType(rawValue: UInt8.random(in: 0...3, using: &numbers))
        extra = NetExtraInfo(segmentation: type, size: UInt16.random(in: 0...100, using: &numbers))
      }
      let flags = NetTxFlags(rawValue: UInt16.random(in: 0...3, using: &numbers))
      let frame = memory.load(bytes)
      guard
        let offload = try? TransmitOffload.prepare(frame, flags: flags, segmentation: extra, hash: nil)
      else { continue }
      taken += 1
      #expect(taps.send(VirtioNetHeader(offload), frame, memory) == 0, "\(offload) of \(bytes)")
    }
    #expect(taken > 2000)
  }
}
