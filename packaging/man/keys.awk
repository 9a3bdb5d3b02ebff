# The keys of the commented example configuration, as mdoc(7). A paragraph of comments belongs to the keys that follow
# it, and what stands below a section's name without keys belongs to the section.
function flush(  i, tag) {
  if (keys == 0) {
    if (text != "" && section != "") print text
    text = ""
    return
  }
  if (!listing) print ".Bl -tag -width Ds"
  listing = 1
  tag = ".It"
  for (i = 1; i <= keys; i++) tag = tag (i > 1 ? " , " : " ") "Li " literal(key[i])
  print tag
  print text
  text = ""
  keys = 0
}
function literal(words) {
  gsub(/\\/, "\\e", words)
  gsub(/"/, "\\(dq", words)
  gsub(/ /, "\\ ", words)
  return words
}
function end() { flush(); if (listing) print ".El"; listing = 0 }
/^\[[a-z]+\]$/ { end(); section = substr($0, 2, length($0) - 2); print ".Ss " section; next }
/^#?[a-z-]+ = / && section != "" { sub(/^#/, ""); key[++keys] = $0; next }
/^#/ { sub(/^# ?/, ""); gsub(/\\/, "\\e"); text = text (text == "" ? "" : " ") $0; next }
/^$/ { flush() }
END { end() }
