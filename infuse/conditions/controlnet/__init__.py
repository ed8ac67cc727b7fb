"""ControlNets of every kind: the condition, its modes, its hints, the types of a union, and what each kind of file asks for."""
