print("castor-vmm")
