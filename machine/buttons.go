package machine

// Key is a button of the machine.
type Key string

// What [Buttons] reports.
const (
	KeyPower   Key = "power"
	KeyRestart Key = "restart"
)

// Buttons calls pressed, one call at a time, for each press of the power and
// restart keys of any input device, also of those that come later. A kernel
// without input devices is [errors.ErrUnsupported]. stop ends it and returns
// when no call is under way or follows.
func Buttons(pressed func(Key)) (stop func(), err error) { return func() {}, nil }
