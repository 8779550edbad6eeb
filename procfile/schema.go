package procfile

import "encoding/json"

// The patterns of texts with a unit and of names.
const (
	patternDuration  = `^([0-9]+(\.[0-9]*)?(ns|us|µs|ms|s|m|h))+$`
	patternSize      = `^[0-9]+(\.[0-9]*)? ?(B|KiB|MiB|GiB|TiB|kB|KB|MB|GB|TB)$`
	patternPercent   = `^[0-9]+(\.[0-9]*)?%$`
	patternOctal     = `^(0o)?[0-7]{1,4}$`
	patternName      = `^[A-Za-z0-9_-]{1,64}$`
	patternVariable  = `^[A-Za-z0-9_]+$`
	patternSetting   = `^[A-Za-z0-9_-][A-Za-z0-9_./-]*$`
	patternPort      = `^0x[0-9a-fA-F]{1,4}$`
	patternInterface = `^([A-Za-z0-9_][A-Za-z0-9_.-]{0,14}|\*)$`
	patternAccess    = `^(user|group):.+$`
)

type object = map[string]any

// Schema returns the JSON Schema (draft 2020-12) of the configuration, made of
// [Keys]. What it accepts can still be wrong: it knows no files, users and ports.
func Schema() []byte {
	defs := object{}
	for _, level := range []Level{AtCgroups, AtApplication, AtWorker, AtBackoff, AtOutput, AtMount, AtMachine, AtInterface} {
		defs[defName(level)] = levelSchema(level)
	}
	defs[defName(AtOutput)].(object)["oneOf"] = []any{
		object{"required": []string{"file"}}, object{"required": []string{"dir"}}, object{"required": []string{"pipe_to"}},
	}
	top := levelSchema(AtTop)
	top["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	top["title"] = "pazinit's configuration"
	top["$defs"] = defs
	out, err := json.MarshalIndent(top, "", "  ")
	if err != nil { // maps of texts and numbers: there is nothing to go wrong
		return nil
	}
	return append(out, '\n')
}

// defNames are what levels are called that have no name of one word, or one that
// says too little.
var defNames = map[Level]string{AtOutput: "output", AtMount: "mount", AtInterface: "interface"}

func defName(level Level) string {
	if name, ok := defNames[level]; ok {
		return name
	}
	return level.Names()[0]
}

func levelSchema(level Level) object {
	keys := object{}
	for i := range table {
		if k := &table[i]; k.At&level != 0 {
			s := k.schema()
			s["description"] = k.Doc
			keys[k.Name] = s
		}
	}
	return object{"type": []string{"object", "null"}, "properties": keys, "additionalProperties": false}
}

// schema is what the key takes.
func (k *Key) schema() object {
	text := object{"type": "string", "minLength": 1}
	single := object{"type": []string{"string", "number", "boolean"}}
	pattern := func(p string) object { return object{"type": "string", "pattern": p} }
	listOf := func(item object) object { return object{"type": "array", "items": item} }
	either := func(all ...any) object { return object{"anyOf": all} }
	ref := func(level Level) object { return object{"$ref": "#/$defs/" + defName(level)} }

	var values []any
	for _, v := range k.Values {
		values = append(values, v)
		switch v {
		case "null":
			values = append(values, nil)
		case "true", "false":
			values = append(values, v == "true")
		}
	}
	words := object{"enum": values}
	whole := object{"type": "integer", "minimum": k.Min, "maximum": k.Max}
	var s object
	switch k.Type {
	case TypeText, TypePath:
		return text // its words are texts too
	case TypeWord:
		return words
	case TypeBool:
		return object{"type": "boolean"}
	case TypeInteger:
		s = whole
	case TypeIntegers:
		s = either(whole, listOf(whole))
	case TypeFactor:
		s = object{"type": "number", "minimum": k.Min, "maximum": k.Max}
	case TypePercent:
		s = pattern(patternPercent)
	case TypeDuration:
		s = pattern(patternDuration)
	case TypeSize:
		s = pattern(patternSize)
	case TypeOctal:
		s = either(pattern(patternOctal), object{"type": "integer", "minimum": k.Min, "maximum": 777})
	case TypeID:
		s = either(text, object{"type": "integer", "minimum": 0, "maximum": uint32(1<<32 - 2)})
	case TypeTexts:
		s = either(text, listOf(text))
	case TypeWords:
		s = either(object{"type": "boolean"}, listOf(pattern(patternVariable)))
	case TypeList:
		s = listOf(single)
	case TypeMap:
		s = object{
			"type": []string{"object", "null"}, "additionalProperties": single,
			"propertyNames": object{"pattern": patternVariable},
		}
	case TypeSection:
		s = ref(k.Inside)
	case TypeSections:
		s = object{
			"type": []string{"object", "null"}, "additionalProperties": ref(k.Inside),
			"propertyNames": object{"pattern": patternName},
		}
	case TypeOutput:
		m := ref(k.Inside)
		m["type"] = "object"
		s = m
	case TypeStop:
		signal := object{"type": []string{"string", "integer"}, "minLength": 1}
		s = either(signal, object{"type": "array", "items": signal, "minItems": 1, "maxItems": maxStopSteps})
	case TypeWordList:
		return either(words, listOf(words))
	case TypeSettings:
		s = object{
			"type": []string{"object", "null"}, "additionalProperties": single,
			"propertyNames": object{"pattern": patternSetting},
		}
	case TypeShare:
		s = either(pattern(patternSize), pattern(patternPercent))
	case TypePort:
		s = either(pattern(patternPort), object{"type": "integer", "minimum": 1, "maximum": 65535})
	case TypeSectionList:
		s = object{"type": []string{"array", "null"}, "items": ref(k.Inside)}
	case TypeInterfaces:
		s = object{
			"type": []string{"object", "null"}, "additionalProperties": ref(k.Inside),
			"propertyNames": object{"pattern": patternInterface},
		}
	case TypeVerbs:
		s = object{
			"type":                 []string{"object", "null"},
			"additionalProperties": either(pattern(patternAccess), listOf(pattern(patternAccess))),
			"propertyNames":        object{"enum": verbs},
		}
	}
	if len(values) > 0 {
		s = either(words, s)
	}
	return s
}
