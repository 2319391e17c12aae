"""Looking through scans with their findings in a browser, and reviewing them.

cases     results -> scans to look through, each with its report
entries   one row of the list: a finding or an added nodule, with a reader's verdict
review    what one reader decided about one scan, as a list of actions that can be undone
store     reviews on disk, one file for each scan and reader
tables    reviews of all readers -> labels in LUNA16's columns
agreement two readers compared
session   the state behind the page: answers to its questions, without HTTP
server    HTTP on 127.0.0.1, with a random token in the address
page/     the page itself, and niivue/ the viewer in it
"""
