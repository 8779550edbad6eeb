package control

func listenUntilKilled(path string) {}
func crowd(path string)             {}
