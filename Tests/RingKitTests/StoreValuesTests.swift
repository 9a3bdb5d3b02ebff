import RingKit
import Testing

@Suite struct StoreValuesTests {
  static let refused = [
    "", " ", "+1", "-1", "-0", " 1", "1 ", "1\n", "0x10", "1e3", "1.0", "1_000", "abc", "٣", "１", "1\u{0}",
    String(repeating: "0", count: 21), String(repeating: "9", count: 4096),
  ]

  @Test(arguments: refused) func nothingButDigitsIsANumber(text: String) {
    #expect(StoreValue.decimal(text, in: UInt64.min...UInt64.max) == nil)
    #expect(StoreValue.decimal(text, in: Int64.min...Int64.max) == nil)
    #expect(XenbusState(text: text) == nil)
  }

  @Test func everyBoundOfEveryWidthIsKept() {
    #expect(StoreValue.decimal("255", in: UInt8.min...UInt8.max) == 255)
    for text in ["256", "260", "999", "2560", "18446744073709551615"] {
      #expect(StoreValue.decimal(text, in: UInt8.min...UInt8.max) == nil, "\(text)")
    }
    #expect(StoreValue.decimal("4294967295", in: 0...UInt32.max) == UInt32.max)
    #expect(StoreValue.decimal("4294967296", in: 0...UInt32.max) == nil)
    #expect(StoreValue.decimal("18446744073709551615", in: 0...UInt64.max) == UInt64.max)
    #expect(StoreValue.decimal("18446744073709551616", in: 0...UInt64.max) == nil)
    #expect(StoreValue.decimal("127", in: Int8.min...Int8.max) == 127)
    #expect(StoreValue.decimal("128", in: Int8.min...Int8.max) == nil)
    #expect(StoreValue.decimal("4", in: 5...9) == nil)
    #expect(StoreValue.decimal("5", in: 5...9) == 5)
    #expect(StoreValue.decimal("9", in: 5...9) == 9)
    #expect(StoreValue.decimal("10", in: 5...9) == nil)
  }

  @Test func leadingZerosAreDecimal() {
    #expect(StoreValue.decimal("007", in: 0...9) == 7)
    #expect(StoreValue.decimal("010", in: 0...99) == 10)
    #expect(StoreValue.decimal("00000000000000000000", in: 0...9) == 0)
  }

  @Test func numbersUpToTenThousandRoundTrip() {
    for number in 0...10_000 {
      #expect(StoreValue.decimal(String(number), in: 0...10_000) == number)
    }
  }

  @Test func statesAreTheNineOfTheHeader() {
    #expect(XenbusState.allCases.count == 9)
    for state in XenbusState.allCases { #expect(XenbusState(text: state.text) == state) }
    for text in ["9", "10", "99", "255", "256", "4 ", "Connected"] {
      #expect(XenbusState(text: text) == nil, "\(text)")
    }
    #expect("\(XenbusState.initWait)" == "InitWait")
  }

  @Test func absolutePathsAreWhatXenstoredTakes() {
    for path in [
      "/a", "/local/domain/5/device/vbd/51712", "/a-b_c@D/0", "/" + String(repeating: "x", count: 3071),
    ] {
      #expect(StoreValue.isAbsolutePath(path), "\(path)")
    }
    for path in [
      "", "/", "a", "a/b", "//", "/a/", "/a//b", "//a", "/a b", "/a.b", "/a/../b", "/é", "/a\0", "/a\n",
      "/" + String(repeating: "x", count: 3072),
    ] {
      #expect(!StoreValue.isAbsolutePath(path), "\(path)")
    }
  }

  @Test func typedReadsTellAbsenceFromNonsense() throws {
    let store = MemoryStore()
    store["/n"] = "12"
    store["/x"] = "12x"
    #expect(try store.decimal("/n", in: 0...20) == 12)
    #expect(try store.decimal("/none", in: 0...20, default: 3) == 3)
    #expect(try store.decimalIfPresent("/none", in: 0...20) == nil)
    #expect(throws: StoreError.missing(path: "/none")) { try store.decimal("/none", in: 0...20) }
    #expect(throws: StoreError.badValue(path: "/n", value: "12", expected: "a decimal number from 0 to 11")) {
      try store.decimal("/n", in: 0...11, default: 3)
    }
    #expect(throws: StoreError.self) { try store.decimalIfPresent("/x", in: 0...20) }
    #expect(throws: StoreError.missing(path: "/none")) { try store.text("/none") }
    #expect(try store.text("/x") == "12x")
  }

  @Test func flagsAreZeroOrOne() throws {
    let store = MemoryStore()
    store["/0"] = "0"
    store["/1"] = "1"
    #expect(try store.flag("/0", default: true) == false)
    #expect(try store.flag("/1", default: false) == true)
    #expect(try store.flag("/none", default: true) == true)
    for value in ["", "2", "-1", "00", "01", "true", "1 "] {
      store["/f"] = value
      #expect(throws: StoreError.badValue(path: "/f", value: value, expected: "0 or 1"), "\(value)") {
        try store.flag("/f", default: true)
      }
    }
  }

  enum Mode: String, CaseIterable {
    case readOnly = "r"
    case readWrite = "w"
  }

  @Test func wordsAreOfTheirSet() throws {
    let store = MemoryStore()
    store["/m"] = "w"
    #expect(try store.word("/m", of: Mode.self) == .readWrite)
    #expect(try store.word("/none", of: Mode.self) == nil)
    store["/m"] = "rw"
    #expect(throws: StoreError.badValue(path: "/m", value: "rw", expected: "\"r\" or \"w\"")) {
      try store.word("/m", of: Mode.self)
    }
  }

  @Test func whatAGuestWroteComesEscapedAndCut() {
    let hostile = "\u{1B}[2J\r\nroot:\u{202E}" + String(repeating: "A", count: 4000)
    let text = StoreError.bad("/local/domain/5/x", hostile, expected: "a number").description
    #expect(text.utf8.count < 300)
    #expect(text.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value < 0x7F }, "\(text)")
    #expect(text.contains("/local/domain/5/x"))
    #expect(text.contains("expected a number"))
    for error in [StoreError.missing(path: hostile), .notText(path: hostile)] {
      #expect(error.description.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value < 0x7F })
    }
  }
}
