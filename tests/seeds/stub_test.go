package seeds

var supervisor, quirks []row
