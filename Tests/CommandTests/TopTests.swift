import Testing

@testable import ringback

@Suite struct TopTests {
  private func numbers(_ name: String, reads: UInt64 = 0, bytes: UInt64 = 0, steps: [[UInt64]] = [])
    -> DiskNumbers
  {
    var disk = DiskNumbers(
      DiskHeader(
        domain: 1, vdev: 51712, name: name, kind: "vbd3", state: "Connected", image: "raw:/srv/\(name).img",
        mode: "w"), DiskDetails())
    (disk.queueCount, disk.queueDepth) = (1, 32)
    var read = KindNumbers()
    (read.completed, read.bytes, read.latency.steps) = (reads, bytes, steps)
    disk.total.requests["read"] = read
    return disk
  }

  @Test func ratesAreDifferences() {
    let before = numbers("xvda", reads: 100, bytes: 1_000_000, steps: [[1000, 90], [9000, 10]])
    let after = numbers(
      "xvda", reads: 300, bytes: 5_000_000, steps: [[1000, 90], [9000, 108], [90_000, 102]])
    let rate = DiskRate(after, since: before, seconds: 2)
    #expect(rate.readsPerSecond == 100 && rate.requestsPerSecond == 100)
    #expect(rate.bytesReadPerSecond == 2_000_000 && rate.bytesWrittenPerSecond == 0)
    // Of the 200 in between, 98 took up to 9 us and 102 up to 90 us.
    #expect(rate.median == 90_000 && rate.p99 == 90_000)
    // After a reconnection the disk has counted from zero; nothing is known of a disk seen for the first time.
    #expect(DiskRate(before, since: after, seconds: 1).readsPerSecond == 100)
    #expect(DiskRate(after, since: nil, seconds: 1).requestsPerSecond == 0)
  }

  @Test func theTableFitsTheTerminal() {
    let rates = ["xvda", "xvdb", "xvdc", "xvdd"].enumerated().map { index, name in
      DiskRate(
        numbers(name, reads: UInt64(index) * 10, bytes: 50_000_000), since: numbers(name), seconds: 1)
    }
    let view = TopView(order: .requests)
    let free = view.lines(rates)
    #expect(free.count == 7 && free[2].hasPrefix("DOM  DISK") && free[3].contains("xvdd"))
    for columns in [10, 40, 60, 80, 120, 200] {
      for rows in [1, 3, 5, 24] {
        let lines = view.lines(rates, columns: columns, rows: rows)
        #expect(lines.count <= rows && lines.allSatisfy { $0.count <= columns }, "\(columns) by \(rows)")
      }
    }
    // What matters most stays on a narrow terminal.
    let narrow = view.lines(rates, columns: 60, rows: 24)
    for word in ["DISK", "READ/S", "WRITE/S", "P99", "ERRORS"] {
      #expect(narrow[2].contains(word), "\(narrow[2])")
    }
    #expect(view.lines(rates, rows: 5).last == "... 3 more")
    #expect(TopView(order: .disk).lines(rates)[3].contains("xvda"))
    #expect(view.lines([]).last == "no disks are served")
  }

  @Test func namesCannotCommandTheTerminal() {
    #expect(TopView.clean("a\u{1B}[2Jb\n\u{7F}c\u{9B}") == "a?[2Jb??c?")
    let rate = DiskRate(numbers("\u{1B}[2J"), since: nil, seconds: 1)
    #expect(!TopView().lines([rate]).joined().contains("\u{1B}"))
  }

  @Test(arguments: [
    (0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (16 << 20, "16 MiB"), (UInt64.max, "16 EiB"),
  ])
  func bytesInWords(value: UInt64, text: String) { #expect(ByteCount(value).description == text) }

  @Test(arguments: [("4096", 4096), ("100M", 100 << 20), ("1T", 1 << 40)])
  func bytesOnTheCommandLine(text: String, value: UInt64) {
    #expect(ByteCountArgument(argument: text)?.value == value)
  }

  @Test(arguments: ["", "M", "-1", "1.5M", "1m", "18446744073709551615K", "99999999999999999999"])
  func malformedBytesOnTheCommandLine(text: String) { #expect(ByteCountArgument(argument: text) == nil) }
}
