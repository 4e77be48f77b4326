{{- /*
Merges .over into .base, in place: objects are merged, null removes, anything else is replaced. Prints nothing.
Not sprig's mergeOverwrite, which drops false, 0 and null.
*/ -}}
{{- define "isthmus.merge" -}}
{{- $base := .base -}}
{{- range $key, $value := .over -}}
  {{- if kindIs "invalid" $value -}}
    {{- $_ := unset $base $key -}}
  {{- else if kindIs "map" $value -}}
    {{- if not (kindIs "map" (index $base $key)) -}}
      {{- $_ := set $base $key dict -}}
    {{- end -}}
    {{- include "isthmus.merge" (dict "base" (index $base $key) "over" $value) -}}
  {{- else -}}
    {{- $_ := set $base $key $value -}}
  {{- end -}}
{{- end -}}
{{- end -}}
