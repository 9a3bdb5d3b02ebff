# Wraps the text lines of an mdoc page: a sentence begins a line, and lines stay under 80 bytes. What starts with
# a dot is a macro and stays as it is, and so do displays.
function say(line) {
  if (line ~ /^[.']/) line = "\\&" line
  print line
}
/^\.Bd -literal/ { literal = 1 }
/^\.Ed/ { literal = 0 }
literal || /^\./ || /^$/ { print; next }
{
  line = ""
  count = split($0, words, / +/)
  for (i = 1; i <= count; i++) {
    if (words[i] == "") continue
    if (line != "" && length(line) + 1 + length(words[i]) > 76) { say(line); line = "" }
    line = line (line == "" ? "" : " ") words[i]
    # an ellipsis and a colon go on in the same sentence
    if (words[i] ~ /[A-Za-z0-9)`'"][.?!]$/ && words[i] !~ /\.\.\.$/) { say(line); line = "" }
  }
  if (line != "") say(line)
}
