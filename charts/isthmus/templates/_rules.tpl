{{- /* Generated from isthmus.install.rbac by `make generate`. */ -}}
{{- define "isthmus.rules" -}}
- apiGroups:
  - discovery.mesh.gloo.solo.io
  resources:
  - destinations
  - meshes
  - workloads
  verbs:
  - create
  - delete
  - patch
- apiGroups:
  - discovery.mesh.gloo.solo.io
  resources:
  - destinations
  - meshes
  - workloads
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - discovery.mesh.gloo.solo.io
  resources:
  - destinations/status
  - meshes/status
  - workloads/status
  verbs:
  - patch
- apiGroups:
  - multicluster.solo.io
  resources:
  - kubernetesclusters
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - multicluster.solo.io
  resources:
  - kubernetesclusters/status
  verbs:
  - patch
- apiGroups:
  - networking.enterprise.mesh.gloo.solo.io
  resources:
  - certificateverifications
  - ratelimitclientconfigs
  - routetables
  - servicedependencies
  - virtualdestinations
  - virtualgateways
  - virtualhosts
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - networking.enterprise.mesh.gloo.solo.io
  resources:
  - certificateverifications/status
  - ratelimitclientconfigs/status
  - routetables/status
  - servicedependencies/status
  - virtualdestinations/status
  - virtualgateways/status
  - virtualhosts/status
  verbs:
  - patch
- apiGroups:
  - networking.mesh.gloo.solo.io
  resources:
  - accesspolicies
  - trafficpolicies
  - virtualmeshes
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - networking.mesh.gloo.solo.io
  resources:
  - accesspolicies/status
  - trafficpolicies/status
  - virtualmeshes/status
  verbs:
  - patch
- apiGroups:
  - observability.enterprise.mesh.gloo.solo.io
  resources:
  - accesslogrecords
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - observability.enterprise.mesh.gloo.solo.io
  resources:
  - accesslogrecords/status
  verbs:
  - patch
- apiGroups:
  - settings.mesh.gloo.solo.io
  resources:
  - settings
  verbs:
  - get
  - list
  - watch
- apiGroups:
  - settings.mesh.gloo.solo.io
  resources:
  - settings/status
  verbs:
  - patch
{{- end -}}
