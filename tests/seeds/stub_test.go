package seeds

var circus, supervisor, quirks []row
