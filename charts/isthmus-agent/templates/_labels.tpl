{{- /* Labels of every object. `meshctl` finds an installation by part-of and component. */ -}}
{{- define "isthmus.labels" -}}
app: enterprise-agent
app.kubernetes.io/part-of: gloo-mesh
app.kubernetes.io/component: enterprise-agent
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}
