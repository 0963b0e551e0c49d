"""Fencing against real, independent components: BMC simulators, fence agents, a hypervisor, arrays, sbd."""
