/// What somebody may have meant.
enum NearestWord {
  /// The known word that takes the fewest changed, added, left out or swapped letters, if those are few.
  static func find(to word: String, among known: [String]) -> String? {
    let ranked = known.map { ($0, distance(Array(word.lowercased()), Array($0))) }
    guard let best = ranked.min(by: { $0.1 < $1.1 }) else { return nil }
    return best.1 <= max(1, best.0.count / 3) ? best.0 : nil
  }

  private static func distance(_ a: [Character], _ b: [Character]) -> Int {
    // Rows of the table of distances between beginnings of the words: the last two, and the one that is made.
    var (before, last) = ([Int](), Array(0...b.count))
    for i in a.indices {
      var row = [i + 1]
      for j in b.indices {
        var least = min(last[j] + (a[i] == b[j] ? 0 : 1), last[j + 1] + 1, row[j] + 1)
        if i > 0, j > 0, a[i] == b[j - 1], a[i - 1] == b[j] { least = min(least, before[j - 1] + 1) }
        row.append(least)
      }
      (before, last) = (last, row)
    }
    return last[b.count]
  }
}
