/// How each verb is called: getopt's pattern and the line that `-h` and a mistake print.
extension TapQuestion.Verb {
  var pattern: String {
    switch self {
    case .list: "m:p:t:f:h"
    case .allocate: "d:h"
    case .free: "m:h"
    case .create: "a:RDd:e:r2:st:C:Eh"
    case .open: "a:RDm:p:e:r2:st:C:Eh"
    case .spawn: "h"
    case .attach, .detach, .stats, .info: "p:m:h"
    case .destroy, .close: "p:m:ft:h"
    case .pause: "p:m:t:h"
    case .unpause: "p:m:a:2:c:h"
    }
  }

  /// Options that have to be there.
  var needed: [Character] {
    switch self {
    case .list, .allocate, .spawn: []
    case .free: ["m"]
    case .create: ["a"]
    case .open: ["p", "m", "a"]
    case .attach, .detach, .stats, .info, .destroy, .close, .pause, .unpause: ["p", "m"]
    }
  }

  var usage: String {
    let tap = "<-p pid> <-m minor>"
    let opening = "[-R read only] [-D no O_DIRECT] [-e minor] [-r] [-t seconds]"
    let openingNotes = """

      -e and -r only save tapdisk work, and -t tells it when to give a request up: taken and without effect.
      Refused, because they cannot be done: -2, -s (mirrors), -C (log of changed blocks), -E (encryption).
      """
    return switch self {
    case .list:
      """
      usage: list [-h] [-p pid] [-m minor] [-t type] [-f file]

      Lists taps in the following format:
           pid minor state       type file
      """
    case .allocate: "usage: allocate [-d name, without effect]"
    case .free: "usage: free <-m minor>"
    case .create:
      "usage: create <-a type:/path/to/file> [-d name, without effect] \(opening)\n\(openingNotes)"
    case .open: "usage: open \(tap) <-a type:/path/to/file> \(opening)\n\(openingNotes)"
    case .spawn: "usage: spawn"
    case .attach, .detach: "usage: \(rawValue) \(tap)"
    case .destroy, .close: "usage: \(rawValue) \(tap) [-f force] [-t timeout secs]"
    case .pause: "usage: pause \(tap) [-t timeout secs]"
    case .unpause: "usage: unpause \(tap) [-a type:/path/to/file]"
    case .stats: "usage: stats \(tap)\n\nPrints the numbers of a tap as one line of JSON."
    case .info: "usage: info \(tap)\n\nPrints the size of a tap's image and its flags."
    }
  }
}
