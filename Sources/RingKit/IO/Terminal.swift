import Glibc

/// The terminal of a program that draws on all of it and reads single keys.
///
/// While this object lives, keys come unechoed and at once, and the terminal shows its other screen; the end
/// of the object, or ``restore()``, brings everything back.
@safe
public final class Terminal {
  /// Where keys come from.
  public let descriptor: Int32 = STDIN_FILENO
  private var former = termios()
  private var isRestored = false

  /// True when standard output is a terminal.
  public static var isOutput: Bool { isatty(STDOUT_FILENO) == 1 }

  /// Takes the terminal over; nil when standard input or output is none.
  public init?() {
    guard isatty(STDIN_FILENO) == 1, Self.isOutput else { return nil }
    // Sound: the structures are this object's own, or local, for the calls.
    guard unsafe tcgetattr(STDIN_FILENO, &former) == 0 else { return nil }
    var raw = former
    // Signals of keys too: a stop by Ctrl-Z would leave the terminal as it is now.
    raw.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG)
    guard unsafe tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0 else { return nil }
    write("\u{1B}[?1049h\u{1B}[?25l")
  }

  deinit { restore() }

  /// Gives the terminal back as it was.
  public func restore() {
    guard !isRestored else { return }
    isRestored = true
    write("\u{1B}[?25h\u{1B}[?1049l")
    // Sound: the structure is this object's own.
    unsafe tcsetattr(STDIN_FILENO, TCSANOW, &former)
  }

  /// Columns and rows, 80 by 24 when the terminal does not say.
  public var size: (columns: Int, rows: Int) {
    var window = winsize()
    // Sound: the call fills the local structure.
    guard unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &window) == 0, window.ws_col > 0, window.ws_row > 0
    else { return (80, 24) }
    return (Int(window.ws_col), Int(window.ws_row))
  }

  /// Replaces what the screen shows.
  public func show(_ lines: [String]) {
    write("\u{1B}[H" + lines.map { "\($0)\u{1B}[K" }.joined(separator: "\r\n") + "\u{1B}[J")
  }

  /// The keys that were pressed, as bytes; empty when the terminal is gone.
  public func keys() -> [UInt8] {
    // Sound: the array's storage is ours for the call and its size is the one passed.
    unsafe [UInt8](unsafeUninitializedCapacity: 64) { buffer, count in
      count = max(0, unsafe read(STDIN_FILENO, buffer.baseAddress, buffer.count))
    }
  }

  private func write(_ text: String) {
    var left = Array(text.utf8)[...]
    while !left.isEmpty {
      // Sound: the slice's storage is valid for the call and its size is the one passed.
      let count = unsafe left.withUnsafeBytes { unsafe Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      guard count > 0 || errno == EINTR else { return }
      left = left.dropFirst(max(0, count))
    }
  }
}
