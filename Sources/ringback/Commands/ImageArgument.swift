import Blkback
import Foundation

/// Images as people name them.
enum ImageArgument {
  /// What goes into `params`. The daemon judges it for good; a mistyped path or prefix is better told here,
  /// before anything is written.
  static func parameters(_ image: String) throws -> String {
    let colon = image.firstIndex(of: ":")
    if let colon, StoreTable.kind(of: image[..<colon]) != nil {
      do {
        _ = try StoreTable.parse(image)
      } catch {
        throw CommandError("\(error)")
      }
      return image
    }
    let path = URL(filePath: image).standardizedFileURL.path
    guard FileManager.default.fileExists(atPath: path) else {
      // A word before a colon may be meant as a prefix.
      let isPrefix =
        colon.map { image[..<$0].allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber) } } ?? false
      throw CommandError(
        "there is no image \(path)" + (isPrefix ? "; known prefixes are: \(StoreTable.summary)" : ""))
    }
    return "raw:\(path)"
  }
}

/// A number of bytes in words: "1.5 GiB".
struct ByteCount: CustomStringConvertible {
  let value: UInt64

  init(_ value: UInt64) { self.value = value }

  var description: String {
    let units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"]
    var (scaled, unit) = (Double(value), 0)
    while scaled >= 1024, unit + 1 < units.count { (scaled, unit) = (scaled / 1024, unit + 1) }
    return unit == 0 || scaled >= 100 || scaled == scaled.rounded()
      ? "\(UInt64(scaled.rounded())) \(units[unit])" : "\((scaled * 10).rounded() / 10) \(units[unit])"
  }
}
