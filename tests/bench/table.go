package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"text/tabwriter"
)

// A row is one number.
type row struct {
	Section string  `json:"section"`
	What    string  `json:"what"`
	Who     string  `json:"who"`
	Value   float64 `json:"value"`
	Unit    string  `json:"unit"`
	Ratio   float64 `json:"ratio,omitempty"` // to the reference
	To      string  `json:"to,omitempty"`    // the reference
	Aim     string  `json:"aim,omitempty"`
	Seeds   string  `json:"seeds,omitempty"` // rows of the older supervisors' list that this answers
	Note    string  `json:"note,omitempty"`
}

// A table is all of them.
type table struct {
	now  string
	rows []row
}

func (t *table) section(name string) { t.now = name }

func (t *table) add(r row) {
	r.Section = t.now
	t.rows = append(t.rows, r)
}

func (t *table) json(w io.Writer) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(t.rows)
}

// print is for people. The aims are those of pazinit, and nothing is judged.
func (t *table) print(w io.Writer) {
	section := ""
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, r := range t.rows {
		if r.Section != section {
			_ = tw.Flush()
			section = r.Section
			fmt.Fprintf(tw, "\n%s\n", section)
		}
		ratio, aim := "", r.Aim
		if r.Ratio != 0 {
			ratio = fmt.Sprintf("%.2f × %s", r.Ratio, r.To)
		}
		if aim != "" {
			aim = "aim " + aim
		}
		if r.Seeds != "" {
			r.Note = r.Seeds + " " + r.Note
		}
		fmt.Fprintf(tw, "  %s\t%s\t%s %s\t%s\t%s\t%s\n", r.What, r.Who, number(r.Value), r.Unit, ratio, aim, r.Note)
	}
	_ = tw.Flush()
}

// number shows three digits, and no fewer than there are before the point.
func number(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e9 {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	digits := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', max(digits, 0), 64)
}

// quantile sorts v.
func quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	slices.Sort(v)
	return v[min(int(q*float64(len(v))), len(v)-1)]
}

func median(v []float64) float64 { return quantile(v, 0.5) }

// A series is what the contenders did, in their order.
type series struct {
	who    []string
	values map[string][]float64
}

func (s *series) add(who string, v float64) {
	if s.values == nil {
		s.values = make(map[string][]float64)
	}
	if _, ok := s.values[who]; !ok {
		s.who = append(s.who, who)
	}
	s.values[who] = append(s.values[who], v)
}

// show adds a row for each contender: a quantile, as a ratio to that of the
// first one. aim and seeds are pazinit's.
func (t *table) show(s *series, q float64, r row, order ...string) {
	who := s.who
	if len(order) > 0 {
		who = order
	}
	base, to := 0.0, ""
	for _, w := range who {
		v, ok := s.values[w]
		if !ok {
			continue
		}
		out := r
		out.Who, out.Value = w, quantile(v, q)
		if base == 0 {
			base, to = out.Value, w
		} else if base > 0 {
			out.Ratio, out.To = out.Value/base, to
		}
		if !isOurs(w) {
			out.Aim, out.Seeds, out.Note = "", "", ""
		}
		t.add(out)
	}
}
