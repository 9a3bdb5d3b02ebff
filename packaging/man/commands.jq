# The commands and options of `ringback --experimental-dump-help`, as mdoc(7).
#   $path     words of the command whose subcommands are told: [] for all, ["tap-ctl"] for that face's
#   $name     what the page calls that command
#   $elsewhere  commands with a page of their own: named here, told there
#   $part     "common": the options that most commands have; "commands": the rest, command by command
def escaped: gsub("\\\\"; "\\e");
# On a macro's line a lone macro name or a quotation mark would be acted on.
def word: escaped | gsub("\""; "\\(dq") | if test("^[A-Z][a-z]$") then "\\&" + . else . end;
def names: [.names[]? | "\(.kind) \(.name)"] | sort;
def flag: if .kind == "long" then "Fl -\(.name)" else "Fl \(.name)" end;
def value: if .kind == "option" then " Ar " + ((.valueName // "value") | word) else "" end;
def tag:
  if .kind == "positional" then "Ar " + ((.valueName // "value") | word)
  else value as $value | [(.names + (.opposite // []))[] | select(.kind != "longWithSingleDash")]
    | sort_by(.kind != "short") | [.[] | flag + $value] | join(" , ")
  end;
# --no-x is told together with --x.
def paired: . as $all | [$all[] | . as $one
  | ([$all[] | select(.kind == "flag" and any(.names[]; .name == "no-" + $one.valueName)) | .names[]]) as $no
  | if any($all[]; .kind == "flag" and $one.kind == "flag" and "no-" + .valueName == $one.valueName) then empty
    elif $one.kind == "flag" and $no != [] then $one + {opposite: $no} else $one end];
def defaults:
  if .defaultValue == null or .defaultValue == "" or .defaultValue == "false" or .kind == "flag" then ""
  elif (.abstract // "") | test("default"; "i") then ""
  else " The default is \(.defaultValue)." end;
def item: ".It " + tag,
  ((.abstract // "No more is to be said of it.") + defaults | escaped),
  (.discussion // empty | escaped);
def list: if length == 0 then empty else paired | ".Bl -tag -width Ds", (.[] | item), ".El" end;
def usage:
  (if .isOptional then "Op " else "" end)
  + (if .kind == "positional" then tag else (.names | sort_by(.kind == "short") | .[0] | flag) + value end)
  + (if .isRepeating then " ..." else "" end);
def shown: select(.shouldDisplay and .commandName != "help");
def leaves: if (.subcommands // []) == [] then shown else .subcommands[] | leaves end;

(reduce $path[] as $word (.command; [.subcommands[] | select(.commandName == $word)][0])) as $root
| [$root | leaves] as $all
| [$all[] | .arguments[]? | select(.shouldDisplay and .kind != "positional")] as $every
# Common is what stands in at least half of the commands with one and the same meaning.
| ($every | group_by([names, .abstract]) | map(select(length * 2 >= ($all | length)))
   | map(.[0])) as $common
| def isCommon: names as $n | .abstract as $a | any($common[]; names == $n and .abstract == $a);
  def section($title):
    [.[] | select((.sectionTitle // "") == $title)] | if length == 0 then empty
    else (if $title == "" then empty else ".Pp", "\($title | escaped):" end), list end;
  def told($title):
    ".Ss \($title | word)",
    ((.abstract // "") | escaped),
    ((.discussion // empty) | ".Pp", escaped),
    ([.arguments[]? | select(.shouldDisplay)] as $taken
     | [$taken[] | select(.kind == "positional" or (isCommon | not))] as $own
     | ".Pp",
       ".D1 Nm \($name) Cm \($title) Op Ar option ...\([$taken[] | select(.kind != "positional" and (.isOptional | not))
         | " " + usage] | join(""))\([$taken[] | select(.kind == "positional") | " " + usage] | join(""))",
       ($own | section(""), (reduce (.[] | .sectionTitle // empty) as $title ([];
         if index($title) then . else . + [$title] end) | .[] as $title | $own | section($title))));
  def walk($before):
    .subcommands[]? | shown | .commandName as $word | (($before + [$word]) | join(" ")) as $title
    | if $elsewhere | index($word) then
        ".Ss \($title | word)", ((.abstract // "") | escaped), ".Pp", "See", ".Xr \($word) 1 ."
      elif (.subcommands // []) == [] then told($title)
      else walk($before + [$word]) end;
  if $part == "common" then $common | sort_by(names) | list else $root | walk([]) end
